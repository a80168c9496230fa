#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]
use super::*;
use crate::stage::Folder;
use reqwest::header::HeaderValue;
use rustls::ServerConfig;
use rustls::pki_types::{CertificateDer, PrivatePkcs8KeyDer};
use std::path::Path;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

#[test]
fn both_forms_of_retry_after_are_read() {
    let now: Timestamp = Timestamp::from_second(784_111_777).unwrap_or_default();
    let asked = |after: &'static str, date: Option<&'static str>| {
        let mut headers = HeaderMap::new();
        headers.insert(header::RETRY_AFTER, HeaderValue::from_static(after));
        if let Some(date) = date {
            headers.insert(header::DATE, HeaderValue::from_static(date));
        }
        retry_after(&headers, now).map(|d| d.as_secs())
    };
    // 784111777 is the date of the example in RFC 9110 section 5.6.7.
    const DATE: &str = "Sun, 06 Nov 1994 08:49:37 GMT";
    assert_eq!(asked("30", None), Some(30));
    assert_eq!(asked(" 30 ", None), Some(30));
    assert_eq!(asked("Sun, 06 Nov 1994 08:51:07 GMT", None), Some(90));
    assert_eq!(asked("Sun, 06 Nov 1994 09:51:07 GMT", Some("Sun, 06 Nov 1994 09:49:37 GMT")), Some(90));
    assert_eq!(asked(DATE, Some("Sun, 06 Nov 1994 09:49:37 GMT")), Some(0), "it has passed");
    for not in ["-1", "1.5", "soon", "", "99999999999999999999", "1994-11-06T08:49:37Z"] {
        assert_eq!(asked(not, Some(DATE)), None, "{not}");
    }
}

/// A TLS server for one connection, with the certificate of the folder; gives its port.
async fn serve(folder: &Path) -> u16 {
    let certificate = CertificateDer::from(std::fs::read(folder.join("certificate.der")).unwrap());
    let key = PrivatePkcs8KeyDer::from(std::fs::read(folder.join("key.der")).unwrap());
    let config = ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certificate], key.into())
        .unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        let (stream, _) = listener.accept().await.unwrap();
        let Ok(mut stream) = TlsAcceptor::from(Arc::new(config)).accept(stream).await else { return };
        let mut request = [0; 4096];
        let _ = stream.read(&mut request).await;
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok").await;
        let _ = stream.shutdown().await;
    });
    port
}

async fn post(url: &str) -> Result<Answer, Trouble> {
    let deadline = Instant::now() + Duration::from_secs(20);
    super::post(&Url::parse(url).unwrap(), HeaderMap::new(), Zeroizing::new(b"{}".to_vec()), deadline).await
}

/// The certificate is for `localhost` and trusted by nobody, but by the process that is told of it as the system would tell.
#[tokio::test]
async fn only_a_certificate_that_the_system_trusts_for_the_host_is_taken() {
    let folder = Folder::new();
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    std::fs::write(folder.0.join("certificate.der"), made.cert.der()).unwrap();
    std::fs::write(folder.0.join("key.der"), made.signing_key.serialize_der()).unwrap();
    let trusted = folder.write("certificate.pem", &made.cert.pem());
    let refused = post(&format!("https://localhost:{}/", serve(&folder.0).await)).await.err();
    assert!(matches!(refused, Some(Trouble::Unreachable(_))), "{refused:?}");

    let ran = std::process::Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "http::tests::a_trusted_certificate_is_taken_for_its_host", "--ignored"])
        .env("SSL_CERT_FILE", &trusted)
        .env_remove("SSL_CERT_DIR")
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&ran.stdout);
    assert!(ran.status.success() && said.contains("1 passed"), "{said}");
}

#[tokio::test]
#[ignore = "run by only_a_certificate_that_the_system_trusts_for_the_host_is_taken"]
async fn a_trusted_certificate_is_taken_for_its_host() {
    let pem = std::env::var("SSL_CERT_FILE").unwrap();
    let folder = Path::new(&pem).parent().unwrap();
    let answer = post(&format!("https://localhost:{}/", serve(folder).await)).await.unwrap();
    assert!(answer.status == 200 && answer.body.is_ok_and(|body| *body == b"ok"));
    let refused = post(&format!("https://127.0.0.1:{}/", serve(folder).await)).await.err();
    assert!(matches!(&refused, Some(Trouble::Unreachable(why)) if why.contains("certificate")), "{refused:?}");
}
