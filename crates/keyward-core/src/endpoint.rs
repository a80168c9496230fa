//! Where credentials may be asked for.

use url::{Host, Url};

/// Longest URL, in bytes.
const URL_MAX_BYTES: usize = 2048;

/// Checks the URL of an endpoint: `https`, or `http` where the parsed host is `localhost`, `127.0.0.1` or `::1`; without
/// user, password, query and fragment. A host that only begins like a loopback address is not one.
///
/// # Errors
/// One sentence that never quotes the URL, since a password may stand in it.
pub fn check_url(text: &str) -> Result<Url, String> {
    if text.len() > URL_MAX_BYTES {
        return Err(format!("the URL is longer than {URL_MAX_BYTES} bytes"));
    }
    let url = Url::parse(text).map_err(|e| format!("it is not a URL: {e}"))?;
    let loopback = match url.host() {
        Some(Host::Domain(name)) => name == "localhost",
        Some(Host::Ipv4(ip)) => ip.octets() == [127, 0, 0, 1],
        Some(Host::Ipv6(ip)) => ip.segments() == [0, 0, 0, 0, 0, 0, 0, 1],
        None => return Err("the URL names no host".to_owned()),
    };
    match url.scheme() {
        "https" => {}
        "http" if loopback => {}
        "http" => return Err("it must begin with https; http is for localhost, 127.0.0.1 and [::1]".to_owned()),
        _ => return Err("it must begin with https".to_owned()),
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err("the URL names a user; store secrets with `keyward secret set NAME`".to_owned());
    }
    if url.query().is_some() || url.fragment().is_some() {
        return Err("the URL has a query or a fragment".to_owned());
    }
    Ok(url)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_https_and_true_loopback_hosts_pass() {
        for good in [
            "https://api.anthropic.com",
            "https://h:8443/a/b",
            "http://localhost:1",
            "http://127.0.0.1",
            "http://[::1]:9/x",
        ] {
            assert!(check_url(good).is_ok(), "{good}");
        }
        for bad in [
            "http://api.anthropic.com",
            "http://localhost.evil.example",
            "http://127.0.0.1.evil.example",
            "http://127.0.0.1@evil.example",
            "http://localhost:80@evil.example/",
            "http://evil.example#localhost",
            "http://127.0.0.2",
            "http://[::2]",
            "http://0.0.0.0",
            "https://user:hunter2@host",
            "https://host/?q=1",
            "https://host/#f",
            "ftp://localhost",
            "file:///etc/passwd",
            "unix:/run/x",
            "api.anthropic.com",
            "",
        ] {
            let said = check_url(bad);
            assert!(said.as_ref().is_err_and(|e| !e.contains("hunter2")), "{bad}: {said:?}");
        }
        // Written otherwise, it is the same address.
        assert!(check_url("http://0x7f.1").is_ok_and(|u| u.host_str() == Some("127.0.0.1")));
    }
}
