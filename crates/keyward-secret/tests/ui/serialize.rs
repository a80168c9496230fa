#[derive(serde::Serialize)]
struct Answer {
    token: keyward_secret::SecretText,
}

fn main() {}
