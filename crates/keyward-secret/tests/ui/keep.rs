fn main() {
    let mut kept: &[u8] = &[];
    if let Ok(secret) = keyward_secret::SecretBytes::new(vec![1]) {
        secret.expose(|bytes| kept = bytes);
    }
    drop(kept.len());
}
