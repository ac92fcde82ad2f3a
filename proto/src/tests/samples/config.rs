//! Changes of configuration.

use std::{
    collections::BTreeMap,
    num::{NonZeroU16, NonZeroU32},
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use fanfare_domain::{
    ApiKey, Change, Endpoint, EndpointState, Entity, KeyId, PauseMode, Role, Tenant, Timestamp,
    config::{EventTypeEntry, ProfileSource, Validation},
    endpoint::{
        Authentication, Batching, Certificate, ClientCertificate, ClientCredentials, Consent,
        CredentialsPlace, DisableReason, Ordering, RateLimit, RatePeriod, Secret, Security, Tls,
    },
    retry::{Delays, Policy, RetryOn, StatusSet},
    seal::Sealed,
    tenant::{Expunge, ExpungeStage, UnknownTypes},
};

use super::{at, endpoint_id, texts, trace};

/// Changes, under the names of their golden records.
pub(super) fn all() -> impl Iterator<Item = (&'static str, Change)> {
    let endpoint = |endpoint: Endpoint| Entity::Endpoint(Arc::new(endpoint));
    let key = |role, tenant| Entity::ApiKey(Arc::new(api_key(role, tenant)));
    [
        ("config-tenant", tenant(None)),
        ("config-tenant-unknown-types", strict_tenant()),
        ("config-tenant-plan", planned_tenant()),
        ("config-tenant-rate-limit", tenant(Some(rate_limit(RatePeriod::Second)))),
        ("config-tenant-expunging", removed_tenant(ExpungeStage::Running)),
        ("config-tenant-expunged", removed_tenant(ExpungeStage::Finished(at(9)))),
        ("config-tenant-again", removed_tenant(ExpungeStage::Earlier(at(9)))),
        ("config-endpoint", endpoint(full_endpoint())),
        ("config-endpoint-bare", endpoint(bare_endpoint(EndpointState::Active))),
        ("config-endpoint-paused-skip", paused(PauseMode::Skip)),
        ("config-endpoint-paused-hold", paused(PauseMode::Hold)),
        ("config-endpoint-disabled-by-hand", disabled(DisableReason::ByHand)),
        ("config-endpoint-disabled-gone", disabled(DisableReason::Gone)),
        ("config-endpoint-disabled-failing", disabled(DisableReason::Failing)),
        ("config-endpoint-rate-limit", endpoint(limited_endpoint(RatePeriod::Second))),
        ("config-endpoint-rate-limit-minute", endpoint(limited_endpoint(RatePeriod::Minute))),
        ("config-endpoint-ordered", endpoint(ordered_endpoint(Ordering::All))),
        ("config-endpoint-ordered-by-key", endpoint(ordered_endpoint(Ordering::Key))),
        ("config-endpoint-batch", endpoint(batching_endpoint(Duration::from_millis(200)))),
        ("config-endpoint-batch-at-once", endpoint(batching_endpoint(Duration::ZERO))),
        ("config-endpoint-condition", endpoint(asking_endpoint())),
        ("config-endpoint-traced", endpoint(traced_endpoint(true))),
        ("config-endpoint-untraced", endpoint(traced_endpoint(false))),
        ("config-endpoint-bearer-and-tls", endpoint(secure_endpoint(bearer(), Some(tls())))),
        ("config-endpoint-validated", endpoint(validated_endpoint(Some(at(7))))),
        ("config-endpoint-unvalidated", endpoint(validated_endpoint(None))),
        ("config-endpoint-basic", endpoint(secure_endpoint(basic(), None))),
        ("config-endpoint-oauth2", endpoint(secure_endpoint(client_credentials(), None))),
        ("config-event-type", event_type(Some("acme"), Validation::Off)),
        ("config-event-type-report", event_type(Some("acme"), Validation::Report)),
        ("config-event-type-enforce", event_type(None, Validation::Enforce)),
        ("config-profile", profile()),
        ("config-key-admin", key(Role::Admin, None)),
        ("config-key-reveals", revealing_key()),
        ("config-key-limited", limited_key()),
        ("config-key-publish", key(Role::Publish, Some("acme"))),
        ("config-key-read", key(Role::Read, Some("acme"))),
    ]
    .into_iter()
    .map(|(name, entity)| (name, change(entity)))
}

/// A deletion, so that the flag is set.
fn change(entity: Entity) -> Change {
    Change {
        entity,
        deleted: true,
        actor: String::from("key_00000000000000000000000001"),
        reason: String::from("moved to another host"),
        trace: trace(),
    }
}

/// A change of an endpoint that has all that an endpoint can have.
pub(in crate::tests) fn endpoint_change() -> Change {
    change(Entity::Endpoint(Arc::new(full_endpoint())))
}

fn tenant(rate_limit: Option<RateLimit>) -> Entity {
    Entity::Tenant(Arc::new(Tenant {
        id: "acme".parse().unwrap(),
        name: String::from("Acme & Söhne"),
        profile: String::from("standard-webhooks"),
        unknown_types: UnknownTypes::Allowed,
        plan: None,
        endpoints_max: None,
        created_at: at(1),
        rate_limit,
        expunge: None,
    }))
}

fn strict_tenant() -> Entity {
    Entity::Tenant(Arc::new(Tenant {
        id: "acme".parse().unwrap(),
        name: String::new(),
        profile: String::from("standard-webhooks"),
        unknown_types: UnknownTypes::Refused,
        plan: None,
        endpoints_max: None,
        created_at: at(1),
        rate_limit: None,
        expunge: None,
    }))
}

fn planned_tenant() -> Entity {
    Entity::Tenant(Arc::new(Tenant {
        id: "acme".parse().unwrap(),
        name: String::new(),
        profile: String::from("kyberaccess"),
        unknown_types: UnknownTypes::Allowed,
        plan: Some(String::from("starter")),
        endpoints_max: NonZeroU32::new(3),
        created_at: at(1),
        rate_limit: Some(rate_limit(RatePeriod::Second)),
        expunge: None,
    }))
}

fn removed_tenant(stage: ExpungeStage) -> Entity {
    let removed = [("endpoints", 2), ("events", 300)];
    let removed = removed.map(|(kind, count)| (String::from(kind), count)).into();
    let expunge = Expunge { stage, through: 7_000, begun_at: at(8), removed };
    Entity::Tenant(Arc::new(Tenant {
        id: "acme".parse().unwrap(),
        name: String::new(),
        profile: String::from("standard-webhooks"),
        unknown_types: UnknownTypes::Allowed,
        plan: None,
        endpoints_max: None,
        created_at: at(1),
        rate_limit: None,
        expunge: Some(expunge),
    }))
}

fn revealing_key() -> Entity {
    Entity::ApiKey(Arc::new(ApiKey { reveals_secrets: true, ..api_key(Role::Admin, None) }))
}

fn limited_key() -> Entity {
    let rate_limit = Some(rate_limit(RatePeriod::Minute));
    Entity::ApiKey(Arc::new(ApiKey { rate_limit, ..api_key(Role::Publish, Some("acme")) }))
}

fn sealed(bytes: &'static [u8]) -> Sealed {
    Sealed { key_id: String::from("1b4f0e98"), bytes: Bytes::from_static(bytes) }
}

fn bare_endpoint(state: EndpointState) -> Endpoint {
    Endpoint {
        id: endpoint_id(1),
        tenant: "acme".parse().unwrap(),
        url: String::from("https://hooks.example.com/in?a=b"),
        name: String::new(),
        description: String::new(),
        filters: vec![">".parse().unwrap()],
        condition: None,
        secrets: Vec::new(),
        headers: BTreeMap::new(),
        state,
        retry: None,
        timeout: None,
        concurrency: None,
        rate_limit: None,
        ordering: Ordering::None,
        batch: None,
        cancelled_before: None,
        trace_context: None,
        security: Security::default(),
        metadata: BTreeMap::new(),
        created_at: at(1),
        updated_at: at(2),
    }
}

fn rate_limit(per: RatePeriod) -> RateLimit {
    let (requests, burst) = (NonZeroU32::new(10).unwrap(), NonZeroU32::MIN);
    RateLimit { requests, per, burst }
}

fn limited_endpoint(per: RatePeriod) -> Endpoint {
    Endpoint { rate_limit: Some(rate_limit(per)), ..bare_endpoint(EndpointState::Active) }
}

fn batching_endpoint(max_wait: Duration) -> Endpoint {
    let batch = Some(Batching { max_events: NonZeroU16::new(50).unwrap(), max_wait });
    Endpoint { batch, ..bare_endpoint(EndpointState::Active) }
}

fn asking_endpoint() -> Endpoint {
    let condition = Some(String::from("data.amount > 100"));
    Endpoint { condition, ..bare_endpoint(EndpointState::Active) }
}

fn traced_endpoint(trace_context: bool) -> Endpoint {
    let trace_context = Some(trace_context);
    Endpoint { trace_context, ..bare_endpoint(EndpointState::Active) }
}

fn ordered_endpoint(ordering: Ordering) -> Endpoint {
    Endpoint { ordering, ..bare_endpoint(EndpointState::Active) }
}

fn secure_endpoint(authentication: Authentication, tls: Option<Tls>) -> Endpoint {
    let security = Security { authentication: Some(authentication), tls, validation: None };
    Endpoint { security, ..bare_endpoint(EndpointState::Active) }
}

fn validated_endpoint(allowed_at: Option<Timestamp>) -> Endpoint {
    let rate = allowed_at.and(NonZeroU32::new(120));
    let validation = Some(Consent { allowed_at, rate });
    let security = Security { validation, ..Security::default() };
    Endpoint { security, ..bare_endpoint(EndpointState::Active) }
}

fn bearer() -> Authentication {
    Authentication::Bearer { token: sealed(b"nonce-and-token") }
}

fn basic() -> Authentication {
    let username = String::from("fanfare");
    Authentication::Basic { username, password: sealed(b"nonce-and-password") }
}

fn client_credentials() -> Authentication {
    Authentication::OAuth2(Box::new(ClientCredentials {
        token_url: String::from("https://login.example.com/oauth2/token"),
        client_id: String::from("fanfare"),
        client_secret: sealed(b"nonce-and-secret"),
        scopes: vec![String::from("hooks.write"), String::from("hooks.read")],
        parameters: texts([("audience", "https://hooks.example.com"), ("resource", "")]),
        place: CredentialsPlace::Body,
    }))
}

fn tls() -> Tls {
    let certificate = |der: &'static [u8], subject: &str| Certificate {
        der: Bytes::from_static(der),
        subject: String::from(subject),
        expires_at: at(9),
    };
    let chain = vec![certificate(b"leaf", "CN=fanfare"), certificate(b"between", "CN=between")];
    let client = Some(ClientCertificate { chain, key: sealed(b"nonce-and-key") });
    Tls { authorities: vec![certificate(b"authority", "CN=Acme CA")], client }
}

fn full_endpoint() -> Endpoint {
    Endpoint {
        name: String::from("Billing"),
        description: String::from("Mirrors invoices."),
        filters: vec!["invoice.*".parse().unwrap(), "payment.>".parse().unwrap()],
        secrets: vec![
            Secret { sealed: sealed(b"nonce-and-new"), created_at: at(2), expires_at: None },
            Secret { sealed: sealed(b"nonce-and-old"), created_at: at(1), expires_at: Some(at(3)) },
        ],
        headers: BTreeMap::from([(String::from("authorization"), sealed(b"nonce-and-bearer"))]),
        retry: Some(policy()),
        timeout: Some(Duration::from_millis(1_500)),
        concurrency: Some(4),
        metadata: texts([("team", "billing"), ("tier", "")]),
        ..bare_endpoint(EndpointState::Active)
    }
}

fn policy() -> Policy {
    Policy {
        delays: Delays::Exponential {
            initial: Duration::from_secs(30),
            factor: NonZeroU32::new(4).unwrap(),
            max: Duration::from_hours(1),
            retries: 5,
        },
        jitter: 100,
        retry_on: RetryOn::Listed,
        listed: StatusSet::of(&[429, 500, 502, 503, 504]),
        gone: StatusSet::of(&[410]),
        retry_after: StatusSet::of(&[429, 503]),
    }
}

fn paused(mode: PauseMode) -> Entity {
    Entity::Endpoint(Arc::new(bare_endpoint(EndpointState::Paused(mode))))
}

fn disabled(reason: DisableReason) -> Entity {
    let delays = Delays::List(vec![Duration::from_secs(5), Duration::from_mins(5)]);
    let retry = Some(Policy { delays, ..policy() });
    let state = EndpointState::Disabled(reason);
    Entity::Endpoint(Arc::new(Endpoint { retry, ..bare_endpoint(state) }))
}

fn event_type(tenant: Option<&str>, validation: Validation) -> Entity {
    Entity::EventType(Arc::new(EventTypeEntry {
        tenant: tenant.map(|tenant| tenant.parse().unwrap()),
        event_type: "invoice.paid".parse().unwrap(),
        description: String::from("An invoice was paid."),
        schema: String::from(r#"{"type":"object"}"#),
        example: String::from(r#"{"amount":98.5}"#),
        validation,
    }))
}

fn profile() -> Entity {
    Entity::Profile(Arc::new(ProfileSource {
        name: String::from("partner"),
        toml: String::from("name = \"partner\"\n"),
    }))
}

fn api_key(role: Role, tenant: Option<&str>) -> ApiKey {
    ApiKey {
        id: KeyId::from_bytes([5; 16]),
        name: String::from("deploy"),
        tenant: tenant.map(|tenant| tenant.parse().unwrap()),
        role,
        sha256: [0xab; 32],
        created_at: at(1),
        expires_at: tenant.map(|_| at(4)),
        reveals_secrets: false,
        rate_limit: None,
    }
}
