//! The shared config and credentials files of AWS ("Shared config and credentials files" of the AWS SDKs and Tools Reference
//! Guide).
//!
//! Sections are `[default]` and `[profile NAME]` in the one, `[NAME]` in the other; settings are `name = value` lines, and
//! lines that begin with white space belong to the setting above and are passed over. Never quotes a line in an error.

use std::collections::BTreeMap;

type Settings = BTreeMap<String, String>;

/// What both files say, by profile.
#[derive(Default)]
pub(super) struct Files {
    config: BTreeMap<String, Settings>,
    credentials: BTreeMap<String, Settings>,
    sessions: BTreeMap<String, Settings>,
}

/// One profile.
pub(super) struct Entry<'f> {
    config: Option<&'f Settings>,
    credentials: Option<&'f Settings>,
}

impl Files {
    /// Reads both files, of which either may be missing.
    ///
    /// # Errors
    /// The line that is none of theirs.
    pub(super) fn read(config: Option<&[u8]>, credentials: Option<&[u8]>) -> Result<Self, String> {
        let read = |bytes: Option<&[u8]>, what: &str| {
            let text = std::str::from_utf8(bytes.unwrap_or_default())
                .map_err(|_| format!("the shared {what} file is not text"))?;
            sections(text)
                .map_err(|line| format!("line {line} of the shared {what} file is neither a section nor a setting"))
        };
        let mut files = Self { credentials: read(credentials, "credentials")?, ..Self::default() };
        for (name, settings) in read(config, "config")? {
            match name.split_once([' ', '\t']).map(|(word, rest)| (word, rest.trim().to_owned())) {
                Some(("profile", name)) => files.config.insert(name, settings),
                Some(("sso-session", name)) => files.sessions.insert(name, settings),
                _ if name == "default" => files.config.insert(name, settings),
                _ => None,
            };
        }
        Ok(files)
    }

    /// A profile, if one of the files has it.
    pub(super) fn entry(&self, name: &str) -> Option<Entry<'_>> {
        let entry = Entry { config: self.config.get(name), credentials: self.credentials.get(name) };
        (entry.config.is_some() || entry.credentials.is_some()).then_some(entry)
    }

    /// A setting of a session of IAM Identity Center.
    pub(super) fn session(&self, session: &str, name: &str) -> Option<&str> {
        self.sessions.get(session)?.get(name).map(String::as_str).filter(|value| !value.is_empty())
    }
}

/// Access key, secret and session, as they stand there.
type Keys<'f> = (&'f str, Option<&'f str>, Option<&'f str>);

impl<'f> Entry<'f> {
    /// A setting; the credentials file comes first.
    pub(super) fn get(&self, name: &str) -> Option<&'f str> {
        let found = [self.credentials, self.config].into_iter().flatten().find_map(|settings| settings.get(name));
        found.map(String::as_str).filter(|value| !value.is_empty())
    }

    /// Its region.
    pub(super) fn region(&self) -> Option<&'f str> {
        self.get("region")
    }

    /// The keys of the credentials file.
    pub(super) fn credentials(&self) -> Option<Keys<'f>> {
        keys(self.credentials)
    }

    /// The keys of the config file.
    pub(super) fn config(&self) -> Option<Keys<'f>> {
        keys(self.config)
    }
}

fn keys(settings: Option<&Settings>) -> Option<Keys<'_>> {
    let text = |name: &str| settings?.get(name).map(String::as_str);
    Some((text("aws_access_key_id")?, text("aws_secret_access_key"), text("aws_session_token")))
}

/// Sections in which a later setting of a name wins; fails with the number of the line.
fn sections(text: &str) -> Result<BTreeMap<String, Settings>, usize> {
    let mut all: BTreeMap<String, Settings> = BTreeMap::new();
    let mut at: Option<String> = None;
    for (number, line) in text.lines().enumerate() {
        let number = number + 1;
        if line.trim().is_empty() || line.starts_with(['#', ';', ' ', '\t']) {
            continue;
        }
        if let Some(rest) = line.strip_prefix('[') {
            let (name, _) = rest.split_once(']').ok_or(number)?;
            let name = name.trim().to_owned();
            all.entry(name.clone()).or_default();
            at = Some(name);
            continue;
        }
        let (name, value) = line.split_once('=').ok_or(number)?;
        let section = at.as_ref().and_then(|at| all.get_mut(at)).ok_or(number)?;
        section.insert(name.trim().to_ascii_lowercase(), value.trim().to_owned());
    }
    Ok(all)
}

/// Splits a command line into words as a shell does, with both kinds of quotes and the backslash, and nothing else of a
/// shell. `None` for a quote that stays open.
pub(super) fn split(line: &str) -> Option<Vec<String>> {
    let (mut words, mut word, mut quote) = (Vec::new(), None::<String>, None::<char>);
    let mut chars = line.chars();
    while let Some(c) = chars.next() {
        match (quote, c) {
            (Some(open), c) if c == open => quote = None,
            (Some('"'), '\\') => {
                let next = chars.next()?;
                let word = word.get_or_insert_default();
                if !matches!(next, '"' | '\\' | '$' | '`') {
                    word.push('\\');
                }
                word.push(next);
            }
            (Some(_), c) => word.get_or_insert_default().push(c),
            (None, '\'' | '"') => {
                quote = Some(c);
                word.get_or_insert_default();
            }
            (None, '\\') => word.get_or_insert_default().push(chars.next()?),
            (None, c) if c.is_whitespace() => words.extend(word.take()),
            (None, c) => word.get_or_insert_default().push(c),
        }
    }
    words.extend(word);
    quote.is_none().then_some(words)
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]
    use super::*;

    const CONFIG: &str = "# c\n[default]\nregion=eu-west-1\n\n[profile dev]\nRegion = us-west-2\ncredential_process = /bin/x\ns3 =\n  max = 1\n[sso-session s]\nregion = no\n[profile\tb]\nregion = b\nregion = c\n";

    #[test]
    fn profiles_are_found_in_both_files() {
        let files =
            Files::read(Some(CONFIG.as_bytes()), Some(b"[dev]\naws_access_key_id = A\naws_secret_access_key=B=\n"))
                .unwrap();
        let dev = files.entry("dev").unwrap();
        assert_eq!(
            (dev.region(), dev.credentials(), dev.config()),
            (Some("us-west-2"), Some(("A", Some("B="), None)), None)
        );
        assert_eq!((dev.get("credential_process"), dev.get("s3"), dev.get("max")), (Some("/bin/x"), None, None));
        assert_eq!(files.entry("default").unwrap().region(), Some("eu-west-1"));
        assert_eq!(files.entry("b").unwrap().region(), Some("c"));
        assert_eq!((files.session("s", "region"), files.session("t", "region")), (Some("no"), None));
        assert!(
            files.entry("s").is_none()
                && files.entry("profile dev").is_none()
                && files.entry("sso-session s").is_none()
        );
    }

    #[test]
    fn a_line_that_is_none_is_named_and_not_quoted() {
        for (text, line) in [("SEKRIT", 1), ("a = b", 1), ("[x]\nSEKRIT", 2), ("[x\n", 1)] {
            let error = Files::read(None, Some(text.as_bytes())).err().unwrap();
            assert_eq!(error, format!("line {line} of the shared credentials file is neither a section nor a setting"));
        }
        assert!(Files::read(Some(b"\xff"), None).is_err());
    }

    #[test]
    fn a_command_line_is_split_as_a_shell_does() {
        let words = |line: &str| split(line).map(|words| words.join("|"));
        for (line, expected) in [
            ("/bin/x  a\tb", "/bin/x|a|b"),
            (r#"/bin/x "a b" 'c "d' e\ f"#, r#"/bin/x|a b|c "d|e f"#),
            (r#"/x "a\"b\n" '' $HOME `id`"#, r#"/x|a"b\n||$HOME|`id`"#),
            ("", ""),
        ] {
            assert_eq!(words(line).as_deref(), Some(expected), "{line}");
        }
        for open in ["'a", "\"a", "a\\", "\"a\\"] {
            assert_eq!(words(open), None, "{open}");
        }
    }
}
