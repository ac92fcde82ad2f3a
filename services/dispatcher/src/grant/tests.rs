//! Tokens from servers that give them, and from servers that do not.

use std::{collections::BTreeMap, sync::atomic::AtomicUsize};

use fanfare_domain::{AddressPolicy, address::AddressRule, seal::Sealed};
use fanfare_egress::Settings;
use fanfare_testkit::receiver::{Behaviour, Received, Receiver, Reply};
use serde_json::json;

use super::*;

const PATIENCE: Duration = Duration::from_mins(1);
const SECRET: &str = "s3cret-of+ours";

/// Credentials for a receiver.
fn credentials(receiver: &Receiver, place: CredentialsPlace) -> ClientCredentials {
    ClientCredentials {
        token_url: receiver.url("/token"),
        client_id: String::from("fan fare"),
        client_secret: Sealed { key_id: String::new(), bytes: Bytes::new() },
        scopes: vec![String::from("hooks.write"), String::from("hooks.read")],
        parameters: BTreeMap::from([(String::from("audience"), String::from("https://a/?b=c"))]),
        place,
    }
}

fn grant(receiver: &Receiver, place: CredentialsPlace) -> Grant {
    let secret = Clear::new(String::from(SECRET));
    Grant::new(&credentials(receiver, place), &secret).unwrap()
}

fn client() -> Client {
    let addresses = AddressPolicy { allow: AddressRule::LOOPBACK.to_vec(), deny: Vec::new() };
    Client::new(&Settings { addresses, ..Settings::default() }).unwrap()
}

async fn ask(grant: &Grant, client: &Client, within: Duration) -> Result<Arc<Token>, NoToken> {
    let wanted: Wanted = Arc::new(|| true);
    let until = Instant::now() + within;
    grant.token(Asking { client, identity: None, wanted: &wanted, until }).await
}

/// Why there is no token.
async fn failure(grant: &Grant, client: &Client, within: Duration) -> String {
    match ask(grant, client, within).await {
        Err(NoToken::Failed(why)) => why,
        other => panic!("{other:?}"),
    }
}

/// Gives tokens with the numbers of their requests.
fn giving(expires_in: serde_json::Value) -> Behaviour {
    Behaviour::ask(move |request: &Received| {
        let token = format!("token-{}", request.number);
        let given =
            json!({ "access_token": token, "token_type": "Bearer", "expires_in": expires_in });
        Behaviour::Reply(Reply::new(200).body(given.to_string()))
    })
}

#[tokio::test]
async fn a_token_is_asked_for_once_and_used_until_shortly_before_its_end() {
    let receiver = Receiver::start().await.unwrap();
    receiver.answer(giving(json!(3_600)));
    let (grant, client) = (grant(&receiver, CredentialsPlace::Header), client());
    let first = ask(&grant, &client, PATIENCE).await.unwrap();
    assert_eq!(first.header(), "Bearer token-1");
    let left = first.good_until.saturating_duration_since(Instant::now());
    assert!(left > Duration::from_secs(3_400) && left <= Duration::from_mins(59), "{left:?}");
    assert_eq!(ask(&grant, &client, PATIENCE).await.unwrap().bytes(), b"token-1");
    assert_eq!(receiver.count(), 1);

    let request = &receiver.requests()[0];
    let form = String::from_utf8(request.body.to_vec()).unwrap();
    let expected = "grant_type=client_credentials&scope=hooks.write+hooks.read\
                    &audience=https%3A%2F%2Fa%2F%3Fb%3Dc";
    assert_eq!(form, expected);
    let pair = data_encoding::BASE64.encode(b"fan+fare:s3cret-of%2Bours");
    assert_eq!(request.header("authorization"), Some(&*format!("Basic {pair}")));
    assert_eq!(request.header("content-type"), Some("application/x-www-form-urlencoded"));
}

#[tokio::test]
async fn a_token_whose_time_is_over_or_that_was_refused_is_replaced() {
    let receiver = Receiver::start().await.unwrap();
    receiver.answer(giving(json!("0")));
    let (grant, client) = (grant(&receiver, CredentialsPlace::Body), client());
    for number in 1..=2 {
        let token = ask(&grant, &client, PATIENCE).await.unwrap();
        assert_eq!(token.bytes(), format!("token-{number}").as_bytes());
    }
    receiver.answer(giving(json!(3_600)));
    let third = ask(&grant, &client, PATIENCE).await.unwrap();
    grant.reject(&third);
    let fourth = ask(&grant, &client, PATIENCE).await.unwrap();
    // Two requests that were under way with it come back late.
    grant.reject(&third);
    let same = ask(&grant, &client, PATIENCE).await.unwrap();
    assert_eq!((fourth.bytes(), same.bytes()), (&b"token-4"[..], &b"token-4"[..]));
    let request = &receiver.requests()[0];
    let form = String::from_utf8(request.body.to_vec()).unwrap();
    assert!(form.ends_with("&client_id=fan+fare&client_secret=s3cret-of%2Bours"), "{form}");
    assert_eq!(request.header("authorization"), None);
}

#[tokio::test]
async fn those_who_want_a_token_at_once_get_one() {
    let receiver = Receiver::start().await.unwrap();
    receiver.answer(giving(json!(3_600)));
    let (grant, client) = (grant(&receiver, CredentialsPlace::Header), client());
    let asked = (0..20).map(|_| ask(&grant, &client, PATIENCE));
    let tokens = futures_util::future::join_all(asked).await;
    assert!(tokens.into_iter().all(|token| token.unwrap().bytes() == b"token-1"));
    assert_eq!(receiver.count(), 1);
}

#[tokio::test]
async fn those_who_wait_get_the_same_refusal() {
    let receiver = Receiver::start().await.unwrap();
    receiver.answer(Behaviour::status(500));
    let (grant, client) = (grant(&receiver, CredentialsPlace::Header), client());
    let asked = (0..20).map(|_| failure(&grant, &client, PATIENCE));
    let told = futures_util::future::join_all(asked).await;
    assert!(told.iter().all(|why| why == "the token endpoint answered 500"), "{told:?}");
    assert_eq!(receiver.count(), 1);
    failure(&grant, &client, PATIENCE).await;
    assert_eq!(receiver.count(), 2, "whoever comes later asks again");
}

#[tokio::test]
async fn nothing_of_a_refusal_is_repeated_but_what_everybody_knows() {
    let echoed = |error: &str| json!({ "error": error, "error_description": SECRET }).to_string();
    let long = "x".repeat(40_000);
    let token = |text: &str| json!({ "access_token": text, "token_type": "bearer" }).to_string();
    let mac = json!({ "access_token": "abc", "token_type": "mac" }).to_string();
    for (status, body, expected) in [
        (401, echoed("invalid_client"), "the token endpoint answered 401 (invalid_client)"),
        (400, echoed(SECRET), "the token endpoint answered 400"),
        (307, String::new(), "the token endpoint answered 307"),
        (200, String::from(SECRET), "the token endpoint's answer has no token"),
        (200, long, "the token endpoint's answer is too long, or not whole"),
        (200, token("a b"), "the token endpoint's token cannot stand in a header"),
        (200, token("a\r\nx: y"), "the token endpoint's token cannot stand in a header"),
        (200, token(""), "the token endpoint's token cannot stand in a header"),
        (200, mac, "the token endpoint's token is none for bearers"),
    ] {
        let receiver = Receiver::start().await.unwrap();
        receiver.answer(Behaviour::Reply(
            Reply::new(status).body(body).header("location", "http://127.0.0.1:1/"),
        ));
        let (grant, client) = (grant(&receiver, CredentialsPlace::Body), client());
        assert_eq!(failure(&grant, &client, PATIENCE).await, expected);
        assert_eq!(receiver.count(), 1);
        assert!(!format!("{grant:?}").contains(SECRET));
    }
}

#[tokio::test]
async fn who_never_answers_is_waited_for_as_long_as_the_attempt_may_take() {
    let receiver = Receiver::start().await.unwrap();
    receiver.answer(Behaviour::Silent);
    let (grant, client) = (grant(&receiver, CredentialsPlace::Header), client());
    let why = failure(&grant, &client, Duration::from_millis(200)).await;
    assert_eq!(why, "no token: no answer within the deadline");
}

#[tokio::test]
async fn no_token_is_asked_for_at_an_address_that_is_not_allowed() {
    let receiver = Receiver::start().await.unwrap();
    let strict = Client::new(&Settings::default()).unwrap();
    let grant = grant(&receiver, CredentialsPlace::Header);
    let why = failure(&grant, &strict, PATIENCE).await;
    assert!(why.starts_with("no token: "), "{why}");
    assert_eq!(receiver.connections(), 0);
}

#[tokio::test]
async fn what_is_no_longer_wanted_asks_for_no_token() {
    let receiver = Receiver::start().await.unwrap();
    let (grant, client) = (grant(&receiver, CredentialsPlace::Header), client());
    let asked = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&asked);
    let wanted: Wanted = Arc::new(move || {
        count.fetch_add(1, Ordering::Relaxed);
        false
    });
    let until = Instant::now() + PATIENCE;
    let asking = Asking { client: &client, identity: None, wanted: &wanted, until };
    assert!(matches!(grant.token(asking).await, Err(NoToken::Withdrawn)));
    assert!(asked.load(Ordering::Relaxed) > 0);
    assert_eq!(receiver.count(), 0);
}

#[test]
fn a_token_is_replaced_before_its_time_is_over() {
    for (expires_in, expected) in [
        (json!(3_600), 3_540.0),
        (json!("3600"), 3_540.0),
        (json!(100), 90.0),
        (json!(0), 0.0),
        (json!(-5), 0.0),
        (json!("soon"), 600.0),
        (json!(null), 600.0),
        (json!(1e300), 86_340.0),
    ] {
        let used = used_for(Some(&expires_in)).as_secs_f64();
        assert!((used - expected).abs() < 0.001, "{expires_in}: {used}");
    }
    assert_eq!(used_for(None), UNSAID);
}
