//! What the guard lets through, without a network.

use std::{
    sync::atomic::{AtomicUsize, Ordering},
    time::Duration,
};

use fanfare_domain::address::AddressRule;
use hyper_util::client::legacy::connect::Connected;
use tower::{ServiceExt as _, service_fn};

use super::*;
use crate::resolve::Found;

/// A connection that does not say to whom.
#[derive(Debug)]
struct Line;

impl Connection for Line {
    fn connected(&self) -> Connected {
        Connected::new()
    }
}

fn guard(route: Route, allow: &[AddressRule], system: fn(&str) -> Found) -> Guard {
    let addresses = AddressPolicy { allow: allow.to_vec(), deny: Vec::new() };
    let resolver = Resolver::with(Duration::from_secs(10), system);
    Guard { resolver, addresses: Arc::new(addresses), route }
}

fn addresses(of: &[&str]) -> Arc<[IpAddr]> {
    of.iter().map(|address| address.parse().unwrap()).collect()
}

/// A resolver with public, private and mixed answers.
fn system(name: &str) -> Found {
    match name {
        "public.example" => Ok(addresses(&["1.1.1.1", "2606:4700::1111"])),
        "private.example" => Ok(addresses(&["10.0.0.1"])),
        "mixed.example" => Ok(addresses(&["1.1.1.1", "2606:4700::1111", "127.0.0.1"])),
        "mapped.example" => Ok(addresses(&["::ffff:169.254.169.254"])),
        "proxy.example" => Ok(addresses(&["10.0.0.9"])),
        _ => Err(LookupError::Failed),
    }
}

fn url(text: &str) -> Url {
    text.parse().unwrap()
}

/// Asks the guard's resolver as the HTTP client would, for a connection to the URL.
async fn resolved(guard: &Guard, text: &str) -> Result<Vec<SocketAddr>, Refusal> {
    let url = url(text);
    let dial = guard.declare(&url)?;
    let name = url.host_str().unwrap().parse().unwrap();
    let answer =
        DIAL.scope(dial, async { reqwest::dns::Resolve::resolve(guard, name).await }).await;
    answer.map(Iterator::collect).map_err(|error| error.downcast_ref::<Refusal>().unwrap().clone())
}

/// Makes a connection through the layer, and returns how many came through.
async fn dialled(guard: &Guard, text: &str) -> (Result<(), Refusal>, usize) {
    let made = AtomicUsize::new(0);
    let made = &*Box::leak(Box::new(made));
    let connector = service_fn(move |()| async move {
        made.fetch_add(1, Ordering::Relaxed);
        Ok::<Line, BoxError>(Line)
    });
    let connecting = guard.layer(connector);
    let dial = match guard.declare(&url(text)) {
        Ok(dial) => dial,
        Err(refusal) => return (Err(refusal), 0),
    };
    let result = DIAL.scope(dial, connecting.oneshot(())).await.map(|Line| ());
    let result = result.map_err(|error| error.downcast_ref::<Refusal>().unwrap().clone());
    (result, made.load(Ordering::Relaxed))
}

fn is_forbidden<T>(result: &Result<T, Refusal>) -> bool {
    matches!(result, Err(Refusal::Forbidden(_) | Refusal::NameForbidden))
}

#[tokio::test]
async fn a_connection_that_no_call_declared_is_refused() {
    let guard = guard(Route::Direct, &AddressRule::LOOPBACK, system);
    let connector = service_fn(|()| async { Ok::<Line, BoxError>(Line) });
    let refused = guard.layer(connector).oneshot(()).await.unwrap_err();
    assert_eq!(refused.downcast_ref(), Some(&Refusal::Undeclared));

    let name = "public.example".parse().unwrap();
    let Err(refused) = reqwest::dns::Resolve::resolve(&guard, name).await else {
        panic!("resolved without a declaration");
    };
    assert_eq!(refused.downcast_ref(), Some(&Refusal::Undeclared));
}

#[tokio::test]
async fn one_forbidden_address_forbids_the_name() {
    let guard = guard(Route::Direct, &[], system);
    for name in ["private.example", "mixed.example", "mapped.example"] {
        let result = resolved(&guard, &format!("http://{name}/")).await;
        assert!(is_forbidden(&result), "{name}: {result:?}");
    }
    let found = resolved(&guard, "http://public.example/").await.unwrap();
    let expected = ["1.1.1.1:0", "[2606:4700::1111]:0"].map(|a| a.parse::<SocketAddr>().unwrap());
    assert_eq!(found, expected);
}

#[tokio::test]
async fn a_name_is_judged_with_the_port_of_its_url() {
    let rule = "10.0.0.1:9000".parse().unwrap();
    let guard = guard(Route::Direct, &[rule], system);
    assert!(resolved(&guard, "http://private.example:9000/").await.is_ok());
    assert!(is_forbidden(&resolved(&guard, "http://private.example:9001/").await));
    assert!(is_forbidden(&resolved(&guard, "http://private.example/").await));
}

#[tokio::test]
async fn a_name_without_an_address_never_opens_the_gate() {
    let guard = guard(Route::Direct, &AddressRule::LOOPBACK, system);
    let result = resolved(&guard, "http://unknown.example/").await;
    assert_eq!(result, Err(Refusal::Lookup(LookupError::Failed)));
}

#[tokio::test]
async fn an_address_is_judged_before_the_connection() {
    let guard = guard(Route::Direct, &["10.0.0.1:9000".parse().unwrap()], system);
    let table = [
        ("http://1.1.1.1/", true),
        ("http://[2606:4700::1111]/", true),
        ("http://10.0.0.1:9000/", true),
        ("http://10.0.0.1:9001/", false),
        ("http://127.0.0.1/", false),
        ("http://2130706433/", false),
        ("http://[::1]/", false),
        ("http://[::ffff:127.0.0.1]/", false),
    ];
    for (text, admitted) in table {
        assert_eq!(guard.declare(&url(text)).is_ok(), admitted, "{text}: for a pooled connection");
        let (result, made) = dialled(&guard, text).await;
        assert_eq!((result.is_ok(), made), (admitted, usize::from(admitted)), "{text}: {result:?}");
        assert!(admitted || is_forbidden(&result), "{text}: {result:?}");
    }
}

#[tokio::test]
async fn the_layer_judges_by_itself_and_does_not_rely_on_the_declaration() {
    let guard = guard(Route::Direct, &[], system);
    let connector = service_fn(|()| async { Ok::<Line, BoxError>(Line) });
    let dial = Dial { target: Target::Address("127.0.0.1".parse().unwrap()), port: 80 };
    let refused = DIAL.scope(dial, guard.layer(connector).oneshot(())).await.unwrap_err();
    assert!(matches!(refused.downcast_ref(), Some(Refusal::Forbidden(_))));
}

#[tokio::test]
async fn through_a_proxy_the_name_is_judged_and_the_proxy_is_not() {
    let guard = guard(Route::Proxy, &[], system);
    for name in ["private.example", "mixed.example"] {
        let (result, made) = dialled(&guard, &format!("http://{name}/")).await;
        assert!(is_forbidden(&result) && made == 0, "{name}: {result:?}");
    }
    let unknown = dialled(&guard, "http://unknown.example/").await;
    assert_eq!(unknown, (Err(Refusal::Lookup(LookupError::Failed)), 0));
    assert_eq!(dialled(&guard, "http://public.example/").await, (Ok(()), 1));

    let dial = Dial { target: Target::Proxy, port: 80 };
    let name = "proxy.example".parse().unwrap();
    let proxy = DIAL.scope(dial, async { reqwest::dns::Resolve::resolve(&guard, name).await });
    assert_eq!(proxy.await.unwrap().count(), 1);
}

#[test]
fn a_peer_that_has_answered_is_judged_once_more() {
    let peer = "10.0.0.9:80".parse().unwrap();
    assert!(is_forbidden(&guard(Route::Direct, &[], system).recheck(peer)));
    assert!(guard(Route::Proxy, &[], system).recheck(peer).is_ok());
    let public = "1.1.1.1:80".parse().unwrap();
    assert!(guard(Route::Direct, &[], system).recheck(public).is_ok());
}

#[test]
fn an_address_of_this_machine_has_to_be_allowed_by_name() {
    // All of loopback is this machine, and this stands for a public address of its interfaces.
    let anything: Vec<AddressRule> = vec!["127.0.0.0/8:9000".parse().unwrap()];
    let guard = guard(Route::Direct, &anything, system);
    assert!(guard.judge("127.0.0.1:9000".parse().unwrap()).is_ok());
    assert!(guard.judge("127.0.0.1:4222".parse().unwrap()).is_err());
    let own = std::net::UdpSocket::bind(("0.0.0.0", 0)).and_then(|socket| {
        socket.connect(("1.1.1.1", 9))?;
        socket.local_addr()
    });
    // Without a way to anywhere there is no such address.
    if let Ok(own) = own {
        let forbidden = guard.judge(SocketAddr::new(own.ip(), 443));
        assert!(forbidden.is_err(), "{}", own.ip());
    }
}

#[test]
fn who_knows_a_name_does_not_learn_what_it_leads_to() {
    let guard = guard(Route::Direct, &[], system);
    let refused = |address: &str| {
        let refusal = guard.judge_all(&addresses(&[address]), 80).unwrap_err();
        crate::fault::refused(&refusal)
    };
    let first = refused("127.0.0.1");
    for address in ["10.0.0.1", "169.254.169.254", "fd00::1", "100.64.0.1"] {
        assert_eq!(refused(address), first);
    }
}
