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
    /// The section of an identity source: its `kind` and that kind's fields.
    Identity,
    /// An `https` URL, or an `http` one whose parsed host is loopback; without user, query and fragment.
    Url,
    /// An absolute path.
    Path,
    /// The name of an environment variable.
    Variable,
    /// A UUID as 8-4-4-4-12 hexadecimal digits.
    Uuid,
    /// An identifier that begins with the text and goes on in ASCII letters and digits (at most 100), or one of the words.
    Tagged(&'static str, &'static [&'static str]),
}

impl Shape {
    /// The word for it.
    pub fn word(self) -> &'static str {
        match self {
            Self::Duration => "duration",
            Self::OneOf(_) => "choice",
            Self::Text => "text",
            Self::Program => "program",
            Self::Variables => "variables",
            Self::Identity => "identity",
            Self::Url => "url",
            Self::Path => "path",
            Self::Variable => "variable",
            Self::Uuid => "uuid",
            Self::Tagged(..) => "id",
        }
    }

    /// Words that a field of this shape may be, and what another content of it begins with.
    pub fn choices(self) -> (&'static [&'static str], Option<&'static str>) {
        match self {
            Self::OneOf(words) => (words, None),
            Self::Tagged(tag, words) => (words, Some(tag)),
            _ => (&[], None),
        }
    }
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
    /// How its credential is handed over where a profile does not say; for an identity source [`Usual::NONE`].
    pub usual: Usual,
}

/// How the credentials of a kind reach the programs that use them.
#[derive(Debug, Clone, Copy)]
pub struct Usual {
    /// Variables that hold the credential where a profile names none.
    pub variables: &'static [&'static str],
    /// The SDKs of the kind read their credential from a folder with configuration and credential files, again and again.
    pub sdk_files: bool,
    /// The one place where the credential is valid.
    pub endpoint: Option<Endpoint>,
    /// The provider whose API takes the credential, by its name in `data/apis.toml`; where `None`, the profile says it.
    pub provider: Option<&'static str>,
}

impl Usual {
    /// Nothing is usual: each profile says it.
    pub const NONE: Self = Self { variables: &[], sdk_files: false, endpoint: None, provider: None };
}

/// A setting that says where a credential is valid, and the variable by which clients learn it.
#[derive(Debug, Clone, Copy)]
pub struct Endpoint {
    /// Field of the profile.
    pub field: &'static str,
    /// Variable that sends the clients there.
    pub variable: &'static str,
    /// Where clients go by themselves.
    pub default: &'static str,
}
