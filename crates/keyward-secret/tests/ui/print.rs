fn main() {
    if let Ok(secret) = keyward_secret::SecretBytes::new(vec![1]) {
        println!("{secret}");
    }
}
