#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]
use super::*;
use crate::stage::{Act, Endpoint, Folder, answer, issue, now, order_with};
use keyward_core::{Failure, Revocation};
use ring::signature::KeyPair;
use ring::signature::{RSA_PKCS1_2048_8192_SHA256, UnparsedPublicKey};
use std::time::Duration;

const TOKEN: &str = r#"{"access_token":"ya29.SEKRIT","expires_in":3599,"token_type":"Bearer"}"#;

/// Made for these tests alone; no service knows it.
const KEY: &str = include_str!("test-key.pem");

fn key_file(uri: &str, more: &str) -> String {
    let key = serde_json::Value::from(KEY);
    format!(
        r#"{{"type":"service_account","project_id":"proj-1","private_key_id":"kid-1","private_key":{key},
            "client_email":"a@proj-1.iam.gserviceaccount.com","token_uri":"{uri}"{more}}}"#
    )
}

fn service(file: &str, more: &str) -> Order {
    let text = format!("kind = \"google-service-account\"\nkey = \"secret:k\"\nregion = \"europe-west1\"\n{more}");
    order_with(&text, &[("k", file)])
}

#[tokio::test]
async fn a_service_account_signs_what_google_can_verify() {
    let endpoint = Endpoint::start(vec![answer("200 OK", "", TOKEN)]).await;
    let uri = format!("{}/token", endpoint.url);
    let credential = issue(&ServiceAccount, &service(&key_file(&uri, ""), "")).await.unwrap();
    assert!(credential.token.expose(|token| token == b"ya29.SEKRIT"));
    assert_eq!(credential.life, Some(Duration::from_secs(3599)));
    let facts: Vec<_> = credential.facts.iter().map(|(name, text)| format!("{name}={text}")).collect();
    assert_eq!(facts, ["project=proj-1", "region=europe-west1"]);
    let request = endpoint.requests.lock().unwrap()[0].clone();
    let form = request.split_once("\r\n\r\n").unwrap().1.to_owned();
    let assertion = form.strip_prefix("grant_type=urn%3Aietf%3Aparams%3Aoauth%3Agrant-type%3Ajwt-bearer&assertion=");
    let (body, signature) = assertion.unwrap().rsplit_once('.').unwrap();
    let pair = RsaKeyPair::from_pkcs8(PrivatePkcs8KeyDer::from_pem_slice(KEY.as_bytes()).unwrap().secret_pkcs8_der());
    let public = UnparsedPublicKey::new(&RSA_PKCS1_2048_8192_SHA256, pair.unwrap().public_key().as_ref().to_vec());
    public.verify(body.as_bytes(), &URL_SAFE_NO_PAD.decode(signature).unwrap()).unwrap();
    let part = |n: usize| -> serde_json::Value {
        serde_json::from_slice(&URL_SAFE_NO_PAD.decode(body.split('.').nth(n).unwrap()).unwrap()).unwrap()
    };
    assert_eq!(part(0), serde_json::json!({"alg": "RS256", "typ": "JWT", "kid": "kid-1"}));
    let claims = part(1);
    assert_eq!((&claims["iss"], &claims["aud"]), (&"a@proj-1.iam.gserviceaccount.com".into(), &uri.as_str().into()));
    assert_eq!(claims["scope"], SCOPE);
    let iat = claims["iat"].as_i64().unwrap();
    assert!((now() - 60..=now()).contains(&iat) && claims["exp"].as_i64() == Some(iat + 3600));
}

#[tokio::test]
async fn what_is_no_key_is_named_and_nothing_is_sent() {
    let endpoint = Endpoint::start(vec![answer("200 OK", "", TOKEN)]).await;
    let uri = format!("{}/token", endpoint.url);
    let good = key_file(&uri, "");
    for (file, word) in [
        ("SEKRIT".to_owned(), "not JSON"),
        ("{}".to_owned(), "is not of `type` `service_account`"),
        (good.replace("service_account", "authorized_user"), "is not of `type`"),
        (good.replace("client_email", "email"), "holds no `client_email`"),
        (good.replace("BEGIN PRIVATE", "BEGIN RSA PRIVATE"), "is not a PEM block"),
        (good.replace("MII", "MIJ"), "is not"),
        (good.replace(&uri, "http://evil.example/token"), "https"),
        (good.replace("project_id", "project"), "`issuer.project` is missing"),
    ] {
        let error = issue(&ServiceAccount, &service(&file, "")).await.unwrap_err();
        assert!(error.fault.causes.join(" ").contains(word), "{word}: {error}");
        assert_eq!(error.failure, Failure::Refused, "{error}");
    }
    assert_eq!(endpoint.count(), 0);
    let named = issue(&ServiceAccount, &service(&good.replace("project_id", "p"), "project = \"other\"")).await;
    assert_eq!(named.unwrap().facts["project"], "other");
}

#[tokio::test]
async fn a_login_is_refreshed_and_taken_back_where_the_profile_says_so() {
    let endpoint = Endpoint::start(vec![answer("200 OK", "", TOKEN), answer("200 OK", "", "")]).await;
    let file = r#"{"type":"authorized_user","client_id":"c","client_secret":"hunter2&","refresh_token":"1//SEKRIT","quota_project_id":"q"}"#;
    let order = |more: &str| {
        let text = format!(
            "kind = \"google-authorized-user\"\ncredentials = \"secret:k\"\nregion = \"global\"\n\
             token_url = \"{}/token\"\n{more}",
            endpoint.url
        );
        order_with(&text, &[("k", file)])
    };
    let credential = issue(&AuthorizedUser, &order("")).await.unwrap();
    assert_eq!(credential.facts["project"], "q");
    assert!(matches!(AuthorizedUser.revoke(&order(""), &credential).await, Revocation::Impossible(_)));
    let more = format!("revocation_endpoint = \"{}/revoke\"", endpoint.url);
    assert!(matches!(AuthorizedUser.revoke(&order(&more), &credential).await, Revocation::Done));
    let requests = endpoint.requests.lock().unwrap().clone();
    let form = "\r\n\r\ngrant_type=refresh_token&client_id=c&client_secret=hunter2%26&refresh_token=1%2F%2FSEKRIT";
    assert!(requests[0].ends_with(form), "{}", requests[0]);
    assert!(requests[1].starts_with("POST /revoke ") && requests.len() == 2);
    assert!(requests[1].ends_with("\r\n\r\ntoken=ya29.SEKRIT&token_type_hint=access_token"), "{}", requests[1]);
}

#[tokio::test]
async fn a_revocation_that_fails_says_so_without_the_token() {
    for act in [
        answer("503 x", "", "{}"),
        answer("400 x", "", r#"{"error":"unsupported_token_type","error_description":"ya29.SEKRIT"}"#),
        Act::Say(String::new()),
    ] {
        let endpoint = Endpoint::start(vec![answer("200 OK", "", TOKEN), act]).await;
        let file = r#"{"type":"authorized_user","client_id":"c","client_secret":"s","refresh_token":"r"}"#;
        let text = format!(
            "kind = \"google-authorized-user\"\ncredentials = \"secret:k\"\nregion = \"global\"\nproject = \"p\"\n\
             token_url = \"{0}/token\"\nrevocation_endpoint = \"{0}/revoke\"",
            endpoint.url
        );
        let order = order_with(&text, &[("k", file)]);
        let credential = issue(&AuthorizedUser, &order).await.unwrap();
        let Revocation::Failed(fault) = AuthorizedUser.revoke(&order, &credential).await else {
            unreachable!("it failed")
        };
        assert!(!fault.to_string().contains("SEKRIT") && !fault.causes.is_empty(), "{fault}");
    }
}

#[tokio::test]
async fn a_refusal_of_google_names_what_to_look_at() {
    for (body, word) in [
        (r#"{"error":"invalid_grant","error_description":"Invalid JWT: Token must be a short-lived token"}"#, "clock"),
        (r#"{"error":"invalid_grant","error_description":"Token has been expired or revoked."}"#, "taken back"),
        (r#"{"error":"invalid_scope"}"#, "`scope`"),
    ] {
        let endpoint = Endpoint::start(vec![answer("400 x", "", body)]).await;
        let order = service(&key_file(&endpoint.url, ""), "");
        let error = issue(&ServiceAccount, &order).await.unwrap_err();
        assert_eq!(error.fault.code, Code::IssuerRefused);
        assert!(error.fault.causes.join(" ").contains(word), "{error}");
    }
}

#[tokio::test]
async fn default_credentials_are_the_file_and_then_the_metadata_server() {
    let folder = Folder::new();
    let endpoint = Endpoint::start(vec![answer("200 OK", "", TOKEN)]).await;
    let path = folder.write("adc.json", &key_file(&endpoint.url, ""));
    let order = |more: &str| order_with(&format!("kind = \"google-adc\"\nregion = \"us\"\n{more}"), &[]);
    let file = format!("credentials_file = \"{}\"", path.display());
    assert_eq!(issue(&Adc, &order(&file)).await.unwrap().facts["project"], "proj-1");
    let absent = format!("credentials_file = \"{}/none\"", folder.0.display());
    assert!(issue(&Adc, &order(&absent)).await.unwrap_err().fault.causes[0].ends_with("/none does not exist"));
    folder.write("adc.json", r#"{"type":"gdch_service_account","project_id":"p"}"#);
    let error = issue(&Adc, &order(&file)).await.unwrap_err();
    assert!(error.fault.causes[0].contains("`gdch_service_account`, which is not taken"), "{error}");
    let empty = format!("gcloud_folder = \"{}\"\nmetadata_url = \"http://10.0.0.1\"", folder.0.display());
    let error = issue(&Adc, &order(&empty)).await.unwrap_err();
    assert!(error.to_string().contains("issuer.metadata_url"), "it is asked where gcloud has no file: {error}");
}

/// The metadata server is asked where there is no file; the home folder of a test is not, so that it is asked directly.
#[tokio::test]
async fn the_metadata_server_must_say_who_it_is() {
    let flavour = "Metadata-Flavor: Google\r\n";
    let endpoint = Endpoint::start(vec![answer("200 OK", flavour, TOKEN), answer("200 OK", flavour, "proj-9")]).await;
    let order =
        |url: &str| order_with(&format!("kind = \"google-adc\"\nregion = \"us\"\nmetadata_url = \"{url}/\""), &[]);
    let credential = metadata(&order(&endpoint.url)).await.unwrap();
    assert_eq!((credential.facts["project"].as_str(), credential.life), ("proj-9", Some(Duration::from_secs(3599))));
    let requests = endpoint.requests.lock().unwrap().clone();
    let first = "GET /computeMetadata/v1/instance/service-accounts/default/token HTTP/1.1\r\n";
    assert!(requests[0].starts_with(first) && requests[0].contains("metadata-flavor: Google\r\n"), "{}", requests[0]);
    assert!(requests[1].starts_with("GET /computeMetadata/v1/project/project-id "), "{}", requests[1]);

    let stranger = Endpoint::start(vec![answer("200 OK", "", TOKEN)]).await;
    let error = metadata(&order(&stranger.url)).await.unwrap_err();
    assert!(error.fault.causes[0].contains("not a metadata server of Google"), "{error}");
    for url in ["http://metadata.evil.example", "http://169.254.169.254.evil.example", "http://10.0.0.1"] {
        assert_eq!(metadata(&order(url)).await.unwrap_err().fault.code, Code::ProfileInvalid, "{url}");
    }
}

const STS: &str =
    r#"{"access_token":"ya29.SEKRIT-sts","expires_in":3600,"token_type":"Bearer","issued_token_type":"x"}"#;

/// An `external_account` whose endpoints are here.
fn outside(url: &str, source: &str, more: &str) -> String {
    format!(
        r#"{{"type":"external_account","audience":"//iam.googleapis.com/p/1","subject_token_type":"urn:ietf:params:oauth:token-type:jwt",
            "token_url":"{url}/v1/token","credential_source":{source}{more}}}"#
    )
}

fn adc_of(folder: &Folder, file: &str, more: &str) -> Order {
    let path = folder.write("adc.json", file);
    let text = format!("kind = \"google-adc\"\nregion = \"us\"\ncredentials_file = \"{}\"\n{more}", path.display());
    order_with(&text, &[])
}

#[tokio::test]
async fn a_subject_token_of_a_file_is_exchanged_and_a_service_account_impersonated() {
    let folder = Folder::new();
    let token = folder.write("token", "SEKRIT-subject\n");
    let ends = Timestamp::now().checked_add(jiff::SignedDuration::from_secs(700)).unwrap();
    let given = serde_json::json!({"accessToken": "ya29.SEKRIT-sa", "expireTime": ends.to_string()}).to_string();
    let endpoint = Endpoint::start(vec![answer("200 OK", "", STS), answer("200 OK", "", &given)]).await;
    let source = format!(r#"{{"file":"{}"}}"#, token.display());
    let sa = format!(
        r#","service_account_impersonation_url":"{}/v1/projects/-/serviceAccounts/a@p.iam.gserviceaccount.com:generateAccessToken",
            "service_account_impersonation":{{"token_lifetime_seconds":700}},"workforce_pool_user_project":"w 1""#,
        endpoint.url
    );
    let file = outside(&endpoint.url, &source, &sa);
    let order = adc_of(&folder, &file, "project = \"p\"\nscope = \"https://a https://b\"");
    let credential = issue(&Adc, &order).await.unwrap();
    assert!(credential.token.expose(|token| token == b"ya29.SEKRIT-sa"));
    assert!(credential.life.is_some_and(|life| (690..=700).contains(&life.as_secs())), "{:?}", credential.life);
    assert_eq!(credential.facts["service_account"], "a@p.iam.gserviceaccount.com");
    let requests = endpoint.requests.lock().unwrap().clone();
    let form = "\r\n\r\ngrant_type=urn%3Aietf%3Aparams%3Aoauth%3Agrant-type%3Atoken-exchange&audience=%2F%2Fiam.googleapis.com%2Fp%2F1\
                &scope=https%3A%2F%2Fwww.googleapis.com%2Fauth%2Fcloud-platform\
                &requested_token_type=urn%3Aietf%3Aparams%3Aoauth%3Atoken-type%3Aaccess_token&subject_token=SEKRIT-subject\
                &subject_token_type=urn%3Aietf%3Aparams%3Aoauth%3Atoken-type%3Ajwt\
                &options=%257B%2522userProject%2522%253A%2522w%2B1%2522%257D";
    assert!(requests[0].starts_with("POST /v1/token ") && requests[0].ends_with(form), "{}", requests[0]);
    assert!(requests[1].contains("authorization: Bearer ya29.SEKRIT-sts\r\n"), "{}", requests[1]);
    let body = requests[1].split_once("\r\n\r\n").unwrap().1;
    let body: serde_json::Value = serde_json::from_str(body).unwrap();
    let asked = serde_json::json!({"delegates": [], "scope": ["https://a", "https://b"], "lifetime": "700s"});
    assert_eq!(body, asked);
}

#[tokio::test]
async fn a_subject_token_of_a_url_is_asked_for_with_its_headers() {
    let folder = Folder::new();
    let endpoint =
        Endpoint::start(vec![answer("200 OK", "", r#"{"t":"SEKRIT-subject"}"#), answer("200 OK", "", STS)]).await;
    let source = format!(
        r#"{{"url":"{}/token?a=b","headers":{{"Metadata":"True"}},"format":{{"type":"json","subject_token_field_name":"t"}}}}"#,
        endpoint.url
    );
    let order = adc_of(&folder, &outside(&endpoint.url, &source, ""), "project = \"p\"");
    let credential = issue(&Adc, &order).await.unwrap();
    assert_eq!(credential.life, Some(Duration::from_secs(3600)));
    let requests = endpoint.requests.lock().unwrap().clone();
    assert!(
        requests[0].starts_with("GET /token?a=b ") && requests[0].contains("metadata: True\r\n"),
        "{}",
        requests[0]
    );
    assert!(requests[1].contains("&subject_token=SEKRIT-subject&"), "{}", requests[1]);
}

#[tokio::test]
async fn an_account_of_others_that_cannot_serve_says_why() {
    let folder = Folder::new();
    let token = folder.write("token", "SEKRIT-subject");
    let endpoint =
        Endpoint::start(vec![answer("400 x", "", r#"{"error":"invalid_grant","error_description":"SEKRIT-subject"}"#)])
            .await;
    let good = format!(r#"{{"file":"{}"}}"#, token.display());
    for (source, word) in [
        (r#"{"executable":{"command":"/bin/x"}}"#.to_owned(), "of the kind `executable`"),
        (r#"{"environment_id":"aws1","url":"http://169.254.169.254/x"}"#.to_owned(), "of the kind `environment_id`"),
        (r#"{"certificate":{}}"#.to_owned(), "of the kind `certificate`"),
        (r#"{"file":"token"}"#.to_owned(), "no absolute path"),
        (r#"{"file":"/nonexistent/x"}"#.to_owned(), "does not exist"),
        (r#"{"url":"http://evil.example/x"}"#.to_owned(), "the URL of the `credential_source`"),
        (r#"{"url":"http://127.0.0.1:1/","headers":{"a b":"c"}}"#.to_owned(), "a header that is none"),
        ("{}".to_owned(), "not one file or URL"),
        (good.replace('}', r#","format":{"type":"xml"}}"#), "neither text nor json"),
        (good.replace('}', r#","format":{"type":"json"}}"#), "names no field"),
        (good.replace('}', r#","format":{"type":"json","subject_token_field_name":"t"}}"#), "is not JSON"),
        (good, "withheld"),
    ] {
        let order = adc_of(&folder, &outside(&endpoint.url, &source, ""), "project = \"p\"");
        let error = issue(&Adc, &order).await.unwrap_err();
        assert!(error.fault.causes.join(" ").contains(word), "{word}: {error}");
    }
    let order = adc_of(&folder, &outside("http://evil.example", "{}", ""), "project = \"p\"");
    assert!(issue(&Adc, &order).await.unwrap_err().to_string().contains("the `token_url`"));
}

#[tokio::test]
async fn a_login_may_impersonate_a_service_account() {
    let folder = Folder::new();
    let refused =
        r#"{"error":{"code":403,"status":"PERMISSION_DENIED","message":"iam.serviceAccounts.getAccessToken denied"}}"#;
    let endpoint = Endpoint::start(vec![answer("200 OK", "", TOKEN), answer("403 x", "", refused)]).await;
    let file = format!(
        r#"{{"type":"impersonated_service_account","service_account_impersonation_url":"{0}/x/a@b:generateAccessToken","delegates":["d"],
            "source_credentials":{{"type":"authorized_user","client_id":"c","client_secret":"s","refresh_token":"r","token_uri":"{0}/t"}}}}"#,
        endpoint.url
    );
    let error = issue(&Adc, &adc_of(&folder, &file, "project = \"p\"")).await.unwrap_err();
    let said = error.fault.causes.join(" ");
    assert!(said.contains("PERMISSION_DENIED: iam.serviceAccounts") && said.contains("Token Creator"), "{error}");
    assert!(endpoint.requests.lock().unwrap()[1].contains(r#""delegates":["d"]"#));
}

#[tokio::test]
async fn the_project_is_that_of_the_credentials_and_then_of_gcloud() {
    let folder = Folder::new();
    let more = format!("gcloud_folder = \"{}\"", folder.0.display());
    let project = async |file: &str| Adc.beside(&adc_of(&folder, file, &more)).await.remove("project");
    assert_eq!(project("{}").await, None);
    std::fs::create_dir(folder.0.join("configurations")).unwrap();
    folder.write("configurations/config_default", "[compute]\nproject = no\n[core]\naccount = a\nproject = first-1\n");
    folder.write("configurations/config_work", "[core]\nproject=work-1\n");
    assert_eq!(project("{}").await.as_deref(), Some("first-1"));
    folder.write("active_config", "work\n");
    assert_eq!(project("{}").await.as_deref(), Some("work-1"));
    assert_eq!(project(r#"{"quota_project_id":"q-1"}"#).await.as_deref(), Some("q-1"));
    assert_eq!(project(r#"{"quota_project_id":"q-1","project_id":"p-1"}"#).await.as_deref(), Some("p-1"));
    for bad in ["../x", "a/b", "none"] {
        folder.write("active_config", bad);
        assert_eq!(project("{}").await, None, "{bad}");
    }
    folder.write("active_config", "work");
    folder.write("configurations/config_work", "[core]\nproject = a}b\n");
    assert_eq!(project("{}").await, None);
}
