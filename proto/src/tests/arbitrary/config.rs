//! Changes of configuration.

use std::{
    num::{NonZeroU16, NonZeroU32},
    sync::Arc,
    time::Duration,
};

use fanfare_domain::{
    ApiKey, Change, Endpoint, EndpointState, Entity, KeyId, PauseMode, Role, Tenant,
    config::{EventTypeEntry, ProfileSource, Validation},
    endpoint::{
        Authentication, Batching, Certificate, ClientCertificate, ClientCredentials, Consent,
        CredentialsPlace, DisableReason, Ordering, RateLimit, RatePeriod, Secret, Security, Tls,
    },
    retry::Policy,
    seal::Sealed,
    tenant::{Expunge, ExpungeStage, UnknownTypes},
};
use proptest::{
    collection::{btree_map, vec},
    option::of,
    prelude::*,
    sample::select,
};

use super::{blob, duration, endpoint_id, event_type, pattern, tenant_id, text, time, trace};

fn sealed() -> impl Strategy<Value = Sealed> {
    ("[a-f0-9]{8}", blob()).prop_map(|(key_id, bytes)| Sealed { key_id, bytes })
}

fn endpoint_state() -> impl Strategy<Value = EndpointState> {
    select(
        &[
            EndpointState::Active,
            EndpointState::Paused(PauseMode::Skip),
            EndpointState::Paused(PauseMode::Hold),
            EndpointState::Disabled(DisableReason::ByHand),
            EndpointState::Disabled(DisableReason::Gone),
            EndpointState::Disabled(DisableReason::Failing),
        ][..],
    )
}

fn rate_limit() -> impl Strategy<Value = RateLimit> {
    let count = || any::<NonZeroU32>();
    (count(), select(&[RatePeriod::Second, RatePeriod::Minute][..]), count())
        .prop_map(|(requests, per, burst)| RateLimit { requests, per, burst })
}

fn authentication() -> impl Strategy<Value = Authentication> {
    let place = select(&[CredentialsPlace::Header, CredentialsPlace::Body][..]);
    let asked = (vec(text(), 0..3), btree_map(text(), text(), 0..3), place);
    let credentials =
        (text(), text(), sealed(), asked).prop_map(
            |(token_url, client_id, client_secret, (scopes, parameters, place))| {
                ClientCredentials { token_url, client_id, client_secret, scopes, parameters, place }
            },
        );
    prop_oneof![
        sealed().prop_map(|token| Authentication::Bearer { token }),
        (text(), sealed())
            .prop_map(|(username, password)| Authentication::Basic { username, password }),
        credentials.prop_map(|it| Authentication::OAuth2(Box::new(it))),
    ]
}

fn security() -> impl Strategy<Value = Security> {
    let certificate = || {
        (blob(), text(), time()).prop_map(|(der, subject, expires_at)| Certificate {
            der,
            subject,
            expires_at,
        })
    };
    let client = (vec(certificate(), 0..3), sealed())
        .prop_map(|(chain, key)| ClientCertificate { chain, key });
    let tls = (vec(certificate(), 0..3), of(client))
        .prop_map(|(authorities, client)| Tls { authorities, client });
    let validation = (of(time()), of(any::<NonZeroU32>()))
        .prop_map(|(allowed_at, rate)| Consent { allowed_at, rate });
    (of(authentication()), of(tls), of(validation))
        .prop_map(|(authentication, tls, validation)| Security { authentication, tls, validation })
}

fn endpoint() -> impl Strategy<Value = Endpoint> {
    let secret = (sealed(), time(), of(time()))
        .prop_map(|(sealed, created_at, expires_at)| Secret { sealed, created_at, expires_at });
    let policy = vec((1_u64..80_000).prop_map(Duration::from_secs), 1..6);
    let wants = (vec(pattern(), 1..4), of(text()));
    let who = (endpoint_id(), tenant_id(), text(), text(), text(), wants);
    let how = (vec(secret, 0..3), btree_map(text(), sealed(), 0..3), endpoint_state());
    let limits = (
        of(policy.prop_map(Policy::from_delays)),
        of(duration()),
        of(prop_oneof![Just(0), any::<u16>()]),
        of(rate_limit()),
        select(&Ordering::ALL[..]),
        of((any::<NonZeroU16>(), duration())
            .prop_map(|(max_events, max_wait)| Batching { max_events, max_wait })),
    );
    let sent = (of(any::<bool>()), security());
    let notes = (btree_map(text(), text(), 0..3), of(time()), sent, time(), time());
    (who, how, limits, notes).prop_map(|(who, how, limits, notes)| {
        let (id, tenant, url, name, description, (filters, condition)) = who;
        let (secrets, headers, state) = how;
        let (retry, timeout, concurrency, rate_limit, ordering, batch) = limits;
        let (metadata, cancelled_before, (trace_context, security), created_at, updated_at) = notes;
        Endpoint {
            id,
            tenant,
            url,
            name,
            description,
            filters,
            condition,
            secrets,
            headers,
            state,
            retry,
            timeout,
            concurrency,
            rate_limit,
            ordering,
            batch,
            cancelled_before,
            trace_context,
            security,
            metadata,
            created_at,
            updated_at,
        }
    })
}

fn api_key() -> impl Strategy<Value = ApiKey> {
    let id = any::<[u8; 16]>().prop_map(KeyId::from_bytes);
    let role = select(&[Role::Admin, Role::Publish, Role::Read][..]);
    let fixed = (role, any::<[u8; 32]>(), any::<bool>(), of(rate_limit()));
    (id, text(), of(tenant_id()), fixed, time(), of(time())).prop_map(
        |(id, name, tenant, fixed, created_at, expires_at)| {
            let (role, sha256, reveals_secrets, rate_limit) = fixed;
            ApiKey {
                id,
                name,
                tenant,
                role,
                sha256,
                created_at,
                expires_at,
                reveals_secrets,
                rate_limit,
            }
        },
    )
}

fn expunge() -> impl Strategy<Value = Expunge> {
    let stage = prop_oneof![
        Just(ExpungeStage::Running),
        time().prop_map(ExpungeStage::Finished),
        time().prop_map(ExpungeStage::Earlier),
    ];
    let removed = btree_map("[a-z]{1,8}", any::<u64>(), 0..4);
    (stage, any::<u64>(), time(), removed).prop_map(|(stage, through, begun_at, removed)| Expunge {
        stage,
        through,
        begun_at,
        removed,
    })
}

fn entity() -> impl Strategy<Value = Entity> {
    let unknown_types = select(&[UnknownTypes::Allowed, UnknownTypes::Refused][..]);
    let limits = (of(rate_limit()), of("[a-z]{1,8}"), of(any::<NonZeroU32>()), unknown_types);
    let limits = (limits, of(expunge()));
    let tenant = (tenant_id(), text(), text(), time(), limits).prop_map(
        |(id, name, profile, created_at, (limits, expunge))| {
            let (rate_limit, plan, endpoints_max, unknown_types) = limits;
            Entity::Tenant(Arc::new(Tenant {
                id,
                name,
                profile,
                rate_limit,
                plan,
                endpoints_max,
                unknown_types,
                created_at,
                expunge,
            }))
        },
    );
    let validation = select(&Validation::ALL[..]);
    let entry = (of(tenant_id()), event_type(), text(), text(), text(), validation).prop_map(
        |(tenant, event_type, description, schema, example, validation)| {
            Entity::EventType(Arc::new(EventTypeEntry {
                tenant,
                event_type,
                description,
                schema,
                example,
                validation,
            }))
        },
    );
    let profile = (text(), text())
        .prop_map(|(name, toml)| Entity::Profile(Arc::new(ProfileSource { name, toml })));
    prop_oneof![
        tenant,
        endpoint().prop_map(|endpoint| Entity::Endpoint(Arc::new(endpoint))),
        entry,
        profile,
        api_key().prop_map(|key| Entity::ApiKey(Arc::new(key))),
    ]
}

pub(in crate::tests) fn change() -> impl Strategy<Value = Change> {
    (entity(), any::<bool>(), text(), text(), trace()).prop_map(
        |(entity, deleted, actor, reason, trace)| Change { entity, deleted, actor, reason, trace },
    )
}
