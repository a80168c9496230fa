fn main() {
    let key = keyward_secret::Key32::make(|b| b.fill(1));
    let _second = key.clone();
}
