//! What an issuer or identity source takes: the description from which profiles are checked and `profile kinds` is shown.

/// Whether a kind makes credentials or assertions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KindRole {
    /// Makes credentials.
    Issuer,
    /// Gives an assertion to an issuer.
    Identity,
}

impl KindRole {
    /// The word for it.
    pub fn word(self) -> &'static str {
        match self {
            Self::Issuer => "issuer",
            Self::Identity => "identity",
        }
    }
}

/// The shape of a field in a profile file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shape {
    /// A duration such as `"30s"`.
    Duration,
    /// A word of the list.
    OneOf(&'static [&'static str]),
    /// Text.
    Text,
    /// A list of texts; the first is the absolute path of a program.
    Program,
    /// A table of environment variables; a text `"secret:NAME"` stands for a stored secret.
    Variables,
}

/// A field.
#[derive(Debug, Clone, Copy)]
pub struct FieldSpec {
    /// Name in the profile file.
    pub name: &'static str,
    /// Shape of its content.
    pub shape: Shape,
    /// A profile without it is refused.
    pub required: bool,
    /// Must be a reference `"secret:NAME"`.
    pub secret: bool,
    /// One line for people.
    pub about: &'static str,
}

/// An issuer or identity source.
#[derive(Debug, Clone, Copy)]
pub struct KindSpec {
    /// Name in the profile file.
    pub kind: &'static str,
    /// What it makes.
    pub role: KindRole,
    /// One line for people.
    pub about: &'static str,
    /// Its fields.
    pub fields: &'static [FieldSpec],
}
