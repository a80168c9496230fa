#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]
use super::*;
use crate::stage::{Act, Endpoint, Folder, answer, issue, order_with};
use keyward_core::{Failure, Revocation};
use serde_json::{Value, json};

fn order(more: &str) -> Order {
    order_with(
        &format!("kind = \"aws-credentials\"\n{more}"),
        &[("i", "AKIA1\n"), ("k", "hunter2/+"), ("t", "SEKRIT==")],
    )
}

/// An order with shared files of this content.
fn shared(folder: &Folder, config: &str, credentials: &str, more: &str) -> Order {
    let (config, credentials) = (folder.write("config", config), folder.write("credentials", credentials));
    order(&format!("config_file = \"{}\"\ncredentials_file = \"{}\"\n{more}", config.display(), credentials.display()))
}

fn document(credential: &Credential) -> Value {
    credential.token.expose(|bytes| serde_json::from_slice(bytes).unwrap())
}

fn keys(seconds: i64, session: &str) -> String {
    let at = Timestamp::now().checked_add(jiff::SignedDuration::from_secs(seconds)).unwrap();
    json!({"AccessKeyId": "ASIA1", "SecretAccessKey": "SEKRIT1", session: "SEKRIT2", "Expiration": at.to_string()})
        .to_string()
}

const DOCUMENT: &str = r#"{"AccessKeyId":"ASIA1","SecretAccessKey":"SEKRIT1","SessionToken":"SEKRIT2"}"#;

#[tokio::test]
async fn stored_keys_become_one_document() {
    let two = "access_key_id = \"secret:i\"\nsecret_access_key = \"secret:k\"\n";
    let credential = issue(&Aws, &order(two)).await.unwrap();
    assert_eq!(document(&credential), json!({"AccessKeyId": "AKIA1", "SecretAccessKey": "hunter2/+"}));
    assert_eq!((credential.life, credential.facts["region"].as_str()), (None, "us-east-1"));
    let revoked = Aws.revoke(&order(two), &credential).await;
    assert!(matches!(revoked, Revocation::Impossible(why) if why.contains("revoke it at its issuer")));
    let three = format!("{two}session_token = \"secret:t\"\nregion = \"eu-central-1\"\nsource = \"secrets\"");
    let credential = issue(&Aws, &order(&three)).await.unwrap();
    assert_eq!(document(&credential)["SessionToken"], "SEKRIT==");
    assert_eq!(credential.facts["region"], "eu-central-1");
}

#[tokio::test]
async fn half_of_a_pair_and_two_sources_are_errors_that_name_both() {
    for (more, cause) in [
        ("access_key_id = \"secret:i\"", "`issuer.secret_access_key` is missing"),
        ("session_token = \"secret:t\"", "`issuer.access_key_id` is missing"),
        ("source = \"secrets\"", "`issuer.access_key_id` is missing"),
        (
            "access_key_id = \"secret:i\"\nsource = \"instance\"",
            "`issuer.access_key_id` and `issuer.source = \"instance\"` are two sources: take one away",
        ),
        ("source = \"container\"", "`issuer.container_url` is missing"),
    ] {
        let error = issue(&Aws, &order(more)).await.unwrap_err();
        assert_eq!((error.fault.code, error.failure), (Code::ProfileInvalid, Failure::Refused), "{more}");
        assert_eq!(error.fault.causes[0], cause);
    }
}

#[tokio::test]
async fn a_shared_profile_gives_its_keys_and_its_region() {
    let folder = Folder::new();
    let config = "[default]\nregion = eu-west-3\n[profile dev]\nregion = eu-west-1\naws_access_key_id = A\naws_secret_access_key = SEKRIT\n";
    let credentials =
        "[default]\naws_access_key_id = B\naws_secret_access_key = SEKRIT3\naws_session_token = SEKRIT4\n";
    for (more, id, region, life) in [
        ("", "B", "eu-west-3", Some(UNTOLD)),
        ("profile = \"dev\"", "A", "eu-west-1", None),
        ("profile = \"dev\"\nregion = \"us-west-2\"\nsource = \"profile\"", "A", "us-west-2", None),
    ] {
        let credential = issue(&Aws, &shared(&folder, config, credentials, more)).await.unwrap();
        assert_eq!(document(&credential)["AccessKeyId"], id, "{more}");
        assert_eq!((credential.facts["region"].as_str(), credential.life), (region, life), "{more}");
    }
}

#[tokio::test]
async fn a_shared_profile_that_cannot_serve_says_why() {
    let folder = Folder::new();
    for (config, more, cause) in [
        ("[default]\nregion = x", "profile = \"nope\"", "the shared files of AWS have no profile `nope`"),
        ("[other]", "source = \"profile\"", "the shared files of AWS have no profile `default`"),
        ("[default]\nregion = x", "", "has neither keys nor a `credential_process`"),
        ("[default]\nrole_arn = r\nsource_profile = b", "", "has a `role_arn` that is none"),
        ("[default]\nrole_arn = arn:x\nsource_profile = b", "", "`b` is in none of the shared files"),
        ("[default]\nrole_arn = arn:x", "", "nothing says with whose keys"),
        ("[default]\nrole_arn = arn:x\nsource_profile = default", "", "leads through too many profiles, or to itself"),
        ("[default]\nrole_arn = arn:x\ncredential_source = Environment", "", "which the broker does not see"),
        ("[default]\nrole_arn = arn:x\ncredential_source = Other", "", "unknown `credential_source`"),
        (
            "[default]\nrole_arn = arn:x\ncredential_source = EcsContainer\nsource_profile = b",
            "",
            "has a `source_profile` and a `credential_source`",
        ),
        ("[default]\nrole_arn = arn:x\nmfa_serial = arn:y", "", "wants a code of a device"),
        ("[default]\nrole_arn = arn:x\nsource_profile = b\nrole_session_name = x", "", "`role_session_name`"),
        ("[default]\nrole_arn = arn:x\nsource_profile = b\nduration_seconds = 60", "", "`duration_seconds`"),
        ("[default]\nweb_identity_token_file = t\nrole_arn = arn:x", "", "no absolute path"),
        ("[default]\nweb_identity_token_file = /t", "", "and no `role_arn`"),
        ("[default]\nsource_profile = b", "", "has a `source_profile` and no `role_arn`"),
        ("[default]\nsso_session = s\n[sso-session s]\nsso_region = x", "", "that is not complete"),
        ("[default]\nsso_start_url = https://x", "", "that is not complete"),
        ("[default]\naws_access_key_id = A", "", "without `aws_secret_access_key`"),
        ("[default]\naws_access_key_id = A\naws_secret_access_key =", "", "without `aws_secret_access_key`"),
        ("[default]\ncredential_process = mint SEKRIT", "", "does not begin with an absolute path"),
        ("[default]\ncredential_process = /bin/echo 'SEKRIT", "", "open quote"),
        ("SEKRIT", "", "line 1 of the shared config file"),
        (
            "[default]\nregion = x.evil/\naws_access_key_id = A\naws_secret_access_key = SEKRIT",
            "",
            "the region is not one",
        ),
    ] {
        let error = issue(&Aws, &shared(&folder, config, "", more)).await.unwrap_err();
        assert!(error.fault.causes.join(" ").contains(cause), "{cause}: {error}");
    }
}

#[tokio::test]
async fn a_file_that_others_can_write_is_not_read() {
    use std::os::unix::fs::PermissionsExt;
    let folder = Folder::new();
    let order = shared(&folder, "", "[default]\naws_access_key_id = A\naws_secret_access_key = SEKRIT\n", "");
    let path = folder.0.join("credentials");
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o666)).unwrap();
    let error = issue(&Aws, &order).await.unwrap_err();
    assert_eq!((error.fault.code, error.failure), (Code::IssuerFailed, Failure::Passing(None)), "{error}");
    std::fs::write(&path, vec![b'#'; 300 * 1024]).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
    assert!(issue(&Aws, &order).await.unwrap_err().fault.causes[0].contains("longer than"));
}

#[tokio::test]
async fn a_process_prints_keys_with_their_end() {
    let folder = Folder::new();
    let run = async |printed: &str| {
        folder.write("printed", printed);
        let config = format!("[profile p]\ncredential_process = /bin/cat \"{}\"\n", folder.0.join("printed").display());
        issue(&Aws, &shared(&folder, &config, "", "profile = \"p\"")).await
    };
    let good = keys(900, "SessionToken").replacen('{', "{\"Version\":1,", 1);
    let credential = run(&good).await.unwrap();
    assert_eq!(document(&credential), serde_json::from_str::<Value>(DOCUMENT).unwrap());
    assert!(credential.life.is_some_and(|life| (890..=900).contains(&life.as_secs())), "{:?}", credential.life);
    let endless = run(r#"{"Version":1,"AccessKeyId":"A","SecretAccessKey":"SEKRIT"}"#).await.unwrap();
    assert_eq!(endless.life, None);
    for bad in [
        keys(900, "SessionToken"),
        good.replace("\"Version\":1", "\"Version\":2"),
        good.replace("AccessKeyId", "Id"),
        good.replace("ASIA1", ""),
        good.replace("ASIA1", "AS IA"),
        keys(-5, "SessionToken").replacen('{', "{\"Version\":1,", 1),
        "SEKRIT".to_owned(),
        "[]".to_owned(),
    ] {
        assert_eq!(run(&bad).await.unwrap_err().fault.code, Code::IssuerAnswer, "{bad}");
    }
}

#[tokio::test]
async fn the_container_gets_its_token_and_gives_keys() {
    let folder = Folder::new();
    let token = folder.write("token", "SEKRIT-token\n");
    let endpoint = Endpoint::start(vec![answer("200 OK", "", &keys(600, "Token"))]).await;
    let more = |url: &str| {
        format!("source = \"container\"\ncontainer_url = \"{url}\"\ncontainer_token_file = \"{}\"", token.display())
    };
    let credential = issue(&Aws, &order(&more(&format!("{}/v2/x?y=1", endpoint.url)))).await.unwrap();
    assert_eq!(document(&credential), serde_json::from_str::<Value>(DOCUMENT).unwrap());
    let request = endpoint.requests.lock().unwrap()[0].clone();
    assert!(request.starts_with("GET /v2/x?y=1 HTTP/1.1\r\n"), "{request}");
    assert!(request.contains("\r\nauthorization: SEKRIT-token\r\n"), "{request}");
    for url in ["http://169.254.170.2.evil.example/", "http://10.0.0.1/", "http://user@169.254.170.2/", "x"] {
        let error = issue(&Aws, &order(&more(url))).await.unwrap_err();
        assert_eq!(error.fault.code, Code::ProfileInvalid, "{url}");
    }
    for (act, code) in [
        (answer("403 x", "", r#"{"message":"SEKRIT-token"}"#), Code::IssuerRefused),
        (answer("500 x", "", ""), Code::IssuerBusy),
        (answer("200 OK", "", &keys(-1, "Token")), Code::IssuerAnswer),
        (answer("200 OK", "", &keys(600, "Token").replace("Expiration", "End")), Code::IssuerAnswer),
        (Act::Say(String::new()), Code::IssuerUnreachable),
    ] {
        let endpoint = Endpoint::start(vec![act]).await;
        assert_eq!(issue(&Aws, &order(&more(&endpoint.url))).await.unwrap_err().fault.code, code);
    }
}

#[tokio::test]
async fn the_instance_is_asked_in_version_two_alone() {
    let acts = || {
        vec![
            answer("200 OK", "", "SEKRIT-imds"),
            answer("200 OK", "", "my-role\n"),
            answer("200 OK", "", &keys(600, "Token").replacen('{', "{\"Code\":\"Success\",", 1)),
        ]
    };
    let endpoint = Endpoint::start(acts()).await;
    let asked = |url: &str| order(&format!("source = \"instance\"\ninstance_url = \"{url}\""));
    let credential = issue(&Aws, &asked(&endpoint.url)).await.unwrap();
    assert_eq!(document(&credential), serde_json::from_str::<Value>(DOCUMENT).unwrap());
    let requests = endpoint.requests.lock().unwrap().clone();
    assert!(requests[0].starts_with("PUT /latest/api/token ") && requests[0].contains("token-ttl-seconds: 300\r\n"));
    for (request, path) in requests[1..].iter().zip(["", "my-role"]) {
        let line = format!("GET /latest/meta-data/iam/security-credentials/{path} HTTP/1.1\r\n");
        assert!(
            request.starts_with(&line) && request.contains("x-aws-ec2-metadata-token: SEKRIT-imds\r\n"),
            "{request}"
        );
    }
    for (n, act) in [
        (0, answer("404 x", "", "")),
        (1, answer("404 x", "", "")),
        (1, answer("200 OK", "", "../../x")),
        (2, answer("200 OK", "", r#"{"Code":"Failed"}"#)),
    ] {
        let mut acts = acts();
        acts[n] = act;
        let endpoint = Endpoint::start(acts).await;
        let error = issue(&Aws, &asked(&endpoint.url)).await.unwrap_err();
        assert_eq!((error.fault.code, endpoint.count()), (Code::IssuerAnswer, n + 1), "{error}");
    }
}

#[tokio::test]
async fn where_nothing_is_named_the_chain_ends_at_the_instance() {
    let folder = Folder::new();
    let closed = {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        format!("http://{}", listener.local_addr().unwrap())
    };
    let error = issue(&Aws, &shared(&folder, "", "", &format!("instance_url = \"{closed}\""))).await.unwrap_err();
    assert_eq!(error.fault.code, Code::IssuerUnreachable);
    assert!(error.fault.causes[1].contains("no secrets are named"), "{error}");
    let endpoint = Endpoint::start(vec![answer("200 OK", "", &keys(600, "Token"))]).await;
    let more = format!("container_url = \"{}/\"\ninstance_url = \"{closed}\"", endpoint.url);
    let credential = issue(&Aws, &shared(&folder, "", "", &more)).await.unwrap();
    assert_eq!((document(&credential)["AccessKeyId"].as_str(), endpoint.count()), (Some("ASIA1"), 1));
}

/// The answer of STS with keys.
fn sts(seconds: i64, id: &str) -> String {
    let at = Timestamp::now().checked_add(jiff::SignedDuration::from_secs(seconds)).unwrap();
    format!(
        "<AssumeRoleResponse xmlns=\"https://sts.amazonaws.com/doc/2011-06-15/\"><AssumeRoleResult><Credentials>\
         <AccessKeyId>{id}</AccessKeyId><SecretAccessKey>SEKRIT1</SecretAccessKey><SessionToken>SEKRIT2</SessionToken>\
         <Expiration>{at}</Expiration></Credentials></AssumeRoleResult></AssumeRoleResponse>"
    )
}

#[tokio::test]
async fn a_role_is_assumed_through_all_of_its_profiles() {
    let folder = Folder::new();
    let endpoint =
        Endpoint::start(vec![answer("200 OK", "", &sts(900, "ASIA8")), answer("200 OK", "", &sts(600, "ASIA1"))]).await;
    let config = "[default]\nrole_arn = arn:aws:iam::1:role/top\nsource_profile = mid\nregion = eu-west-1\nexternal_id = x=/1\n\
                  [profile mid]\nrole_arn = arn:aws:iam::1:role/mid\nsource_profile = keys\nrole_session_name = me\nduration_seconds = 900\n";
    let credentials = "[keys]\naws_access_key_id = AKIA2\naws_secret_access_key = SEKRIT3\nrole_arn = arn:ignored\n";
    let url = format!("sts_url = \"{}/sts\"", endpoint.url);
    let credential = issue(&Aws, &shared(&folder, config, credentials, &url)).await.unwrap();
    assert_eq!(document(&credential), serde_json::from_str::<Value>(DOCUMENT).unwrap());
    assert!(credential.life.is_some_and(|life| (590..=600).contains(&life.as_secs())));
    let facts = (credential.facts["role"].as_str(), credential.facts["region"].as_str());
    assert_eq!(facts, ("arn:aws:iam::1:role/top", "eu-west-1"));
    let requests = endpoint.requests.lock().unwrap().clone();
    for (request, id, more) in [
        (&requests[0], "AKIA2", "role%2Fmid&RoleSessionName=me&DurationSeconds=900"),
        (&requests[1], "ASIA8", "role%2Ftop&RoleSessionName=keyward-p&ExternalId=x%3D%2F1"),
    ] {
        assert!(request.starts_with("POST /sts HTTP/1.1\r\n"), "{request}");
        assert!(
            request.contains(&format!("Credential={id}/")) && request.contains("/eu-west-1/sts/aws4_request"),
            "{request}"
        );
        let form = "\r\n\r\nAction=AssumeRole&Version=2011-06-15&RoleArn=arn%3Aaws%3Aiam%3A%3A1%3A";
        assert!(request.ends_with(&format!("{form}{more}")), "{request}");
        assert!(!request.contains("SEKRIT1") && !request.contains("SEKRIT3"), "{request}");
    }
    assert!(requests[1].contains("x-amz-security-token: SEKRIT2\r\n") && !requests[0].contains("security-token"));
}

#[tokio::test]
async fn a_profile_that_leads_to_itself_uses_its_own_keys_for_its_role() {
    let folder = Folder::new();
    let endpoint = Endpoint::start(vec![answer("200 OK", "", &sts(900, "ASIA1"))]).await;
    let config = "[default]\nrole_arn = arn:aws:iam::1:role/r\nsource_profile = default\n";
    let credentials = "[default]\naws_access_key_id = AKIA2\naws_secret_access_key = SEKRIT3\n";
    let url = format!("sts_url = \"{}\"", endpoint.url);
    issue(&Aws, &shared(&folder, config, credentials, &url)).await.unwrap();
    assert!(endpoint.requests.lock().unwrap()[0].contains("Credential=AKIA2/"));
}

#[tokio::test]
async fn an_identity_token_makes_a_role_without_a_signature() {
    let folder = Folder::new();
    let token = folder.write("token", "SEKRIT.token\n");
    let endpoint = Endpoint::start(vec![answer("200 OK", "", &sts(900, "ASIA1"))]).await;
    let config = format!(
        "[default]\nrole_arn = arn:aws:iam::1:role/r\nweb_identity_token_file = {}\naws_access_key_id = A\naws_secret_access_key = B\n",
        token.display()
    );
    let url = format!("sts_url = \"{}\"", endpoint.url);
    let credential = issue(&Aws, &shared(&folder, &config, "", &url)).await.unwrap();
    assert_eq!(document(&credential)["AccessKeyId"], "ASIA1");
    let request = endpoint.requests.lock().unwrap()[0].clone();
    assert!(
        request.contains("Action=AssumeRoleWithWebIdentity&") && request.ends_with("&WebIdentityToken=SEKRIT.token")
    );
    assert!(!request.to_ascii_lowercase().contains("authorization"), "{request}");
    for text in ["", "\n", "SEKRIT SEKRIT", "SEKRIT\u{e9}"] {
        folder.write("token", text);
        let error = issue(&Aws, &shared(&folder, &config, "", &url)).await.unwrap_err();
        assert_eq!((error.fault.code, error.failure), (Code::IssuerFailed, Failure::Passing(None)), "{error}");
    }
}

#[tokio::test]
async fn what_sts_refuses_is_told_without_a_quote_and_what_may_pass_is_tried_again() {
    let folder = Folder::new();
    let refusal = |code: &str, message: &str| {
        format!(
            "<ErrorResponse><Error><Type>Sender</Type><Code>{code}</Code><Message>{message}</Message></Error></ErrorResponse>"
        )
    };
    let config = "[default]\nrole_arn = arn:aws:iam::1:role/r\nsource_profile = k\n";
    let credentials = "[k]\naws_access_key_id = AKIA2\naws_secret_access_key = SEKRIT3-of-the-keys\n";
    for (act, failure, words) in [
        (
            answer("403 x", "", &refusal("AccessDenied", "not authorized to perform: sts:AssumeRole")),
            Failure::Refused,
            "AccessDenied: not authorized",
        ),
        (
            answer("403 x", "", &refusal("InvalidClientTokenId", "token SEKRIT3-of-the-keys is invalid")),
            Failure::Refused,
            "InvalidClientTokenId",
        ),
        (
            answer("400 x", "", &refusal("ExpiredTokenException", "it is over")),
            Failure::Passing(None),
            "ExpiredTokenException",
        ),
        (answer("400 x", "", &refusal("Throttling", "slow down")), Failure::Passing(None), "Throttling"),
        (answer("400 x", "", "<html>SEKRIT"), Failure::Refused, "(without a reason)"),
        (answer("503 x", "", ""), Failure::Passing(None), "503"),
        (answer("200 OK", "", &sts(-5, "ASIA1")), Failure::Passing(None), "over"),
        (
            answer("200 OK", "", &sts(900, "ASIA1").replace("AccessKeyId>", "Id>")),
            Failure::Passing(None),
            "`AccessKeyId`",
        ),
        (answer("200 OK", "", &sts(900, "AS<b>IA1</b>")), Failure::Passing(None), "`AccessKeyId`"),
        (answer("200 OK", "", &sts(900, "A&amp;B")), Failure::Passing(None), "`AccessKeyId`"),
        (answer("200 OK", "", &sts(900, "A").repeat(2)), Failure::Passing(None), "`AccessKeyId`"),
        (
            Act::Say("HTTP/1.1 307 x\r\nlocation: http://evil.example/\r\ncontent-length: 0\r\n\r\n".to_owned()),
            Failure::Refused,
            "redirects",
        ),
    ] {
        let endpoint = Endpoint::start(vec![act]).await;
        let url = format!("sts_url = \"{}\"", endpoint.url);
        let error = issue(&Aws, &shared(&folder, config, credentials, &url)).await.unwrap_err();
        let said = error.fault.causes.join(" ");
        assert!(error.failure == failure && said.contains(words), "{words}: {error:?}");
    }
}

#[tokio::test]
async fn a_login_of_the_identity_center_gives_keys_until_it_is_over() {
    let folder = Folder::new();
    let ends = Timestamp::now().checked_add(jiff::SignedDuration::from_secs(600)).unwrap().as_millisecond();
    let keys = json!({"roleCredentials": {
        "accessKeyId": "ASIA1", "secretAccessKey": "SEKRIT1", "sessionToken": "SEKRIT2", "expiration": ends,
    }});
    let endpoint = Endpoint::start(vec![answer("200 OK", "", &keys.to_string()), answer("401 x", "", "{}")]).await;
    let config = "[default]\nsso_session = my sso\nsso_account_id = 123\nsso_role_name = a/b\nregion = eu-west-1\n\
                  [sso-session my sso]\nsso_region = eu-north-1\nsso_start_url = https://x.awsapps.com/start\n";
    let more = format!("sso_url = \"{}\"\nsso_cache = \"{}\"", endpoint.url, folder.0.display());
    // SHA-1 of the name of the session, as `printf 'my sso' | sha1sum` prints it.
    let name = "b3902c2d49b36c95af74dedb0f77c5828749e230.json";
    let kept = |at: &str| {
        folder.write(name, &json!({"accessToken": "SEKRIT-sso", "expiresAt": at, "region": "x"}).to_string())
    };
    let order = || shared(&folder, config, "", &more);
    let over = |error: IssueError| {
        assert!(error.to_string().contains("aws sso login") && error.failure == Failure::Passing(None), "{error}");
    };
    over(issue(&Aws, &order()).await.unwrap_err());
    kept("2020-01-01T00:00:00Z");
    over(issue(&Aws, &order()).await.unwrap_err());
    assert_eq!(endpoint.count(), 0);
    kept("2999-01-01T00:00:00Z");
    let credential = issue(&Aws, &order()).await.unwrap();
    assert_eq!(document(&credential), serde_json::from_str::<Value>(DOCUMENT).unwrap());
    assert!(credential.life.is_some_and(|life| (590..=600).contains(&life.as_secs())));
    let request = endpoint.requests.lock().unwrap()[0].clone();
    assert!(
        request.starts_with("GET /federation/credentials?role_name=a%2Fb&account_id=123 HTTP/1.1\r\n"),
        "{request}"
    );
    assert!(request.contains("\r\nx-amz-sso_bearer_token: SEKRIT-sso\r\n"), "{request}");
    over(issue(&Aws, &order()).await.unwrap_err());
}

#[tokio::test]
async fn the_region_of_the_shared_profile_stands_beside_its_keys() {
    let folder = Folder::new();
    let config = "[default]\nregion = eu-west-1\n[profile odd]\nregion = x.evil/\n";
    for (more, region) in [("", Some("eu-west-1")), ("profile = \"odd\"", None), ("profile = \"nope\"", None)] {
        let found = Aws.beside(&shared(&folder, config, "", more)).await;
        assert_eq!(found.get("region").map(String::as_str), region, "{more}");
    }
}
