#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]
use super::*;
use hyper::header::{HeaderName, HeaderValue};

/// The secret of the published test suite; it opens nothing.
const SECRET: &str = "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY";
const AT: f64 = 1_440_938_160.0;

fn headers(lines: &[(&str, &str)], signed: &str, signature: &str) -> HeaderMap {
    let authorization = format!(
        "AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/20150830/us-east-1/service/aws4_request, SignedHeaders={signed}, Signature={signature}"
    );
    let mut headers = HeaderMap::new();
    let fixed =
        [("host", "example.amazonaws.com"), ("x-amz-date", "20150830T123600Z"), ("authorization", &authorization)];
    for (name, value) in lines.iter().chain(&fixed) {
        headers.append(name.parse::<HeaderName>().unwrap(), HeaderValue::from_str(value).unwrap());
    }
    headers
}

fn check(
    (method, path, query): (&str, &str, &str),
    lines: &[(&str, &str)],
    body: &str,
    (signed, signature): (&str, &str),
) -> Result<(), &'static str> {
    let headers = headers(lines, signed, signature);
    let request = Request { method, path, query, headers: &headers, body: body.as_bytes() };
    verify(&request, &parse(&headers)?, SECRET, ("us-east-1", "service"), AT)
}

const HOST_DATE: &str = "host;x-amz-date";
const VANILLA: &str = "5fa00fa31553b73ebf1942676e86291e8372ff2a2260956d9b8aae1d763fbf31";
const ALL: &str = "-._~0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";

/// Rows of the published test suite of Signature Version 4, by their names there.
#[test]
fn the_published_vectors_verify() {
    let unreserved = format!("/{ALL}");
    let query_unreserved = format!("{ALL}={ALL}");
    for (name, target, signature) in [
        ("get-vanilla", ("GET", "/", ""), VANILLA),
        (
            "get-vanilla-query-order-encoded",
            ("GET", "/", "Param-3=Value3&Param=Value2&%E1%88%B4=Value1"),
            "371d3713e185cc334048618a97f809c9ffe339c62934c032af5a0e595648fcac",
        ),
        (
            "get-vanilla-query-order-key-case",
            ("GET", "/", "Param2=value2&Param1=value1"),
            "b97d918cfa904a5beff61c982a1b6f458b799221646efd99d3219ec94cdf2500",
        ),
        (
            "get-vanilla-query-unreserved",
            ("GET", "/", query_unreserved.as_str()),
            "9c3e54bfcdf0b19771a7f523ee5669cdf59bc7cc0884027167c21bb143a40197",
        ),
        (
            "get-vanilla-empty-query-key",
            ("GET", "/", "Param1=value1"),
            "a67d582fa61cc504c4bae71f336f98b97f1ea3c7a6bfe1b6e45aec72011b9aeb",
        ),
        (
            "get-vanilla-utf8-query",
            ("GET", "/", "ሴ=bar"),
            "2cdec8eed098649ff3a119c94853b13c643bcf08f8b0a1d91e12c9027818dd04",
        ),
        ("get-utf8", ("GET", "/ሴ", ""), "8318018e0b0f223aa2bbf98705b62bb787dc9c0e678f255a891fd03141be5d85"),
        (
            "get-unreserved",
            ("GET", unreserved.as_str(), ""),
            "07ef7494c76fa4850883e2b006601f940f8a34d404d0cfa977f52a65bbf5f24f",
        ),
        (
            "get-space-normalized",
            ("GET", "/example space/", ""),
            "652487583200325589f1fba4c7e578f72c47cb61beeca81406b39ddec1366741",
        ),
        (
            "get-slashes-normalized",
            ("GET", "//example//", ""),
            "9a624bd73a37c9a373b5312afbebe7a714a789de108f0bdfe846570885f57e84",
        ),
        ("get-relative-normalized", ("GET", "/example/..", ""), VANILLA),
        ("get-slash-dot-slash-normalized", ("GET", "/./", ""), VANILLA),
        ("post-vanilla", ("POST", "/", ""), "5da7c1a2acd57cee7505fc6676e4e544621c30862966e37dddb68e92efbe5d6b"),
    ] {
        assert_eq!(check(target, &[], "", (HOST_DATE, signature)), Ok(()), "{name}");
    }
}

#[test]
fn the_published_vectors_with_headers_and_a_body_verify() {
    let get = ("GET", "/", "");
    let token = "6e86291e8372ff2a2260956d9b8aae1d763fbf315fa00fa31553b73ebf194267";
    let twice = [("my-header1", "value2"), ("my-header1", "value2"), ("my-header1", "value1")];
    let one = ("host;my-header1;x-amz-date", "c9d5ea9f3f72853aea855b47ea873832890dbdd183b4468f858259531a5138ea");
    assert_eq!(check(get, &twice, "", one), Ok(()));
    let spaced = [("my-header1", " value1"), ("my-header2", " \"a   b   c\"")];
    let trim =
        ("host;my-header1;my-header2;x-amz-date", "acc3ed3afb60bb290fc8d2dd0098b9911fcaa05412b367055dee359757a9c736");
    assert_eq!(check(get, &spaced, "", trim), Ok(()));
    let session =
        ("host;x-amz-date;x-amz-security-token", "07ec1639c89043aa0e3e2de82b96708f198cceab042d4a97044c66dd9f74e7f8");
    assert_eq!(check(get, &[("x-amz-security-token", token)], "", session), Ok(()));
    let digest = "9095672bbd1f56dfc5b65f3e153adc8731a4a654192329106275f4c7b24d0b6e";
    let lines = [
        ("content-type", "application/x-www-form-urlencoded"),
        ("content-length", "13"),
        ("x-amz-content-sha256", digest),
    ];
    let signed = "content-length;content-type;host;x-amz-content-sha256;x-amz-date";
    let form = (signed, "d3875051da38690788ef43de4db0d8f280229d82040bfac253562e56c3f20e0b");
    assert_eq!(check(("POST", "/", ""), &lines, "Param1=value1", form), Ok(()));
    assert_eq!(check(("POST", "/", ""), &lines, "Param1=value2", form), Err("body_digest"));
}

#[test]
fn whatever_changes_breaks_the_signature() {
    for (target, lines, signed, signature, reason) in [
        (("POST", "/", ""), vec![], HOST_DATE, VANILLA, "bad_signature"),
        (("GET", "/x", ""), vec![], HOST_DATE, VANILLA, "bad_signature"),
        (("GET", "/", "a=b"), vec![], HOST_DATE, VANILLA, "bad_signature"),
        (("GET", "/", ""), vec![("x-amz-security-token", "t")], HOST_DATE, VANILLA, "header_not_signed"),
        (("GET", "/", ""), vec![], "x-amz-date", VANILLA, "header_not_signed"),
        (("GET", "/", ""), vec![], "x-amz-date;host", VANILLA, "signed_headers_order"),
        (("GET", "/", ""), vec![], "host;other;x-amz-date", VANILLA, "signed_header_missing"),
        (("GET", "/", ""), vec![], "Host;x-amz-date", VANILLA, "signed_headers_order"),
        (("GET", "/", ""), vec![], HOST_DATE, "", "bad_signature"),
        (
            ("GET", "/", ""),
            vec![("x-amz-content-sha256", "UNSIGNED-PAYLOAD")],
            "host;x-amz-content-sha256;x-amz-date",
            VANILLA,
            "body_digest",
        ),
    ] {
        assert_eq!(check(target, &lines, "", (signed, signature)), Err(reason), "{target:?} {signed}");
    }
    let headers = headers(&[], HOST_DATE, VANILLA);
    let request = Request { method: "GET", path: "/", query: "", headers: &headers, body: b"" };
    let signed = parse(&headers).unwrap();
    for (scope, secret, now, reason) in [
        (("us-east-1", "service"), "other", AT, "bad_signature"),
        (("us-west-2", "service"), SECRET, AT, "scope_region"),
        (("us-east-1", "bedrock"), SECRET, AT, "scope_service"),
        (("us-east-1", "service"), SECRET, AT + 301.0, "clock_skew"),
        (("us-east-1", "service"), SECRET, AT - 301.0, "clock_skew"),
    ] {
        assert_eq!(verify(&request, &signed, secret, scope, now), Err(reason));
    }
    assert_eq!(verify(&request, &signed, SECRET, ("us-east-1", "service"), AT + 299.0), Ok(()));
}

#[test]
fn an_encoded_path_is_encoded_once_more() {
    for (path, canonical) in [
        ("/test/@connections/JBDvjfGEIAMCERw%3D", "/test/%40connections/JBDvjfGEIAMCERw%253D"),
        ("/model/us.anthropic.x-v1%3A0/invoke", "/model/us.anthropic.x-v1%253A0/invoke"),
        ("/model/us.anthropic.x-v1:0/invoke", "/model/us.anthropic.x-v1%3A0/invoke"),
        ("/../../a/", "/a/"),
        ("", "/"),
    ] {
        assert_eq!(canonical_path(path), canonical, "{path}");
    }
}

#[test]
fn what_is_no_header_of_the_scheme_is_named() {
    let reason = |value: &str| {
        let mut headers = headers(&[], "host", "0");
        headers.insert("authorization", HeaderValue::from_str(value).unwrap());
        parse(&headers).unwrap_err()
    };
    for (value, expected) in [
        ("Bearer x", "not_sigv4"),
        ("AWS4-HMAC-SHA256 x", "authorization_malformed"),
        ("AWS4-HMAC-SHA256 SignedHeaders=a, Credential=b, Signature=c", "authorization_malformed"),
        ("AWS4-HMAC-SHA256 Credential=A/20150830/r/s, SignedHeaders=host, Signature=c", "scope_malformed"),
        ("AWS4-HMAC-SHA256 Credential=A/20150830/r/s/aws4, SignedHeaders=host, Signature=c", "scope_malformed"),
    ] {
        assert_eq!(reason(value), expected, "{value}");
    }
    assert_eq!(parse(&HeaderMap::new()).unwrap_err(), "no_credential");
    for bad in ["20150830", "20150830 123600Z", "20151330T123600Z", "ä0150830T12360Z", ""] {
        assert_eq!(seconds(bad), None, "{bad}");
    }
    assert_eq!(seconds("20150830T123600Z"), Some(AT as i64));
}
