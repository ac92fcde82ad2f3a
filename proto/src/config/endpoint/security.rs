//! How an endpoint and we make sure of each other.

use bytes::Bytes;
use fanfare_domain::{
    Timestamp,
    endpoint::{
        Authentication, Certificate, ClientCertificate, ClientCredentials, Consent, Security, Tls,
    },
    seal::Sealed,
};

use super::sealed;
use crate::{
    choice::Choice,
    encode::{Fields, Sink, TextEntry},
    error::DecodeError,
    parse, wire,
};

/// Reads what may be absent.
pub(super) fn decode(wire: Option<wire::Security>) -> Result<Security, DecodeError> {
    let Some(wire) = wire else { return Ok(Security::default()) };
    Ok(Security {
        authentication: wire.authentication.map(authentication).transpose()?,
        tls: wire.tls.map(tls).transpose()?,
        validation: wire.validation.map(validation).transpose()?,
    })
}

fn authentication(wire: wire::Authentication) -> Result<Authentication, DecodeError> {
    use wire::authentication::Kind;

    Ok(match parse::required(wire.kind, "Authentication.kind")? {
        Kind::Bearer(token) => Authentication::Bearer { token: sealed(token) },
        Kind::Basic(basic) => Authentication::Basic {
            username: basic.username,
            password: sealed(parse::required(basic.password, "Basic.password")?),
        },
        Kind::Oauth2(wire) => {
            let secret = parse::required(wire.client_secret, "ClientCredentials.client_secret")?;
            Authentication::OAuth2(Box::new(ClientCredentials {
                token_url: wire.token_url,
                client_id: wire.client_id,
                client_secret: sealed(secret),
                scopes: wire.scopes,
                parameters: wire.parameters,
                place: Choice::from_wire(wire.place, "ClientCredentials.place")?,
            }))
        }
    })
}

fn tls(wire: wire::Tls) -> Result<Tls, DecodeError> {
    let client = |wire: wire::ClientCertificate| {
        let key = sealed(parse::required(wire.key, "ClientCertificate.key")?);
        let chain = wire.chain.into_iter().map(certificate).collect();
        Ok::<_, DecodeError>(ClientCertificate { chain, key })
    };
    Ok(Tls {
        authorities: wire.authorities.into_iter().map(certificate).collect(),
        client: wire.client.map(client).transpose()?,
    })
}

fn validation(wire: wire::Consent) -> Result<Consent, DecodeError> {
    let rate = wire.rate.map(|rate| parse::positive(rate, "Consent.rate"));
    Ok(Consent { allowed_at: parse::time(wire.allowed_at_ns), rate: rate.transpose()? })
}

fn certificate(wire: wire::Certificate) -> Certificate {
    Certificate {
        // A slice would keep the whole message alive.
        der: Bytes::copy_from_slice(&wire.der),
        subject: wire.subject,
        expires_at: Timestamp::from_nanos(wire.expires_at_ns),
    }
}

impl Fields for Security {
    fn write(&self, out: &mut impl Sink) {
        let Self { authentication, tls, validation } = self;
        if let Some(authentication) = authentication {
            out.message(1, authentication);
        }
        if let Some(tls) = tls {
            out.message(2, tls);
        }
        if let Some(validation) = validation {
            out.message(3, validation);
        }
    }
}

impl Fields for Consent {
    fn write(&self, out: &mut impl Sink) {
        let Self { allowed_at, rate } = self;
        out.some_time(1, *allowed_at);
        if let Some(rate) = rate {
            out.some_uint(2, u64::from(rate.get()));
        }
    }
}

impl Fields for Authentication {
    fn write(&self, out: &mut impl Sink) {
        match self {
            Self::Bearer { token } => out.message(1, token),
            Self::Basic { username, password } => out.message(2, &Basic(username, password)),
            Self::OAuth2(credentials) => out.message(3, &**credentials),
        }
    }
}

/// A name and a password.
struct Basic<'a>(&'a str, &'a Sealed);

impl Fields for Basic<'_> {
    fn write(&self, out: &mut impl Sink) {
        let Self(username, password) = self;
        out.text(1, username);
        out.message(2, *password);
    }
}

impl Fields for ClientCredentials {
    fn write(&self, out: &mut impl Sink) {
        let Self { token_url, client_id, client_secret, scopes, parameters, place } = self;
        out.text(1, token_url);
        out.text(2, client_id);
        out.message(3, client_secret);
        for scope in scopes {
            out.some_bytes(4, scope.as_bytes());
        }
        for (name, value) in parameters {
            out.message(5, &TextEntry(name, value));
        }
        out.uint(6, place.to_wire());
    }
}

impl Fields for Tls {
    fn write(&self, out: &mut impl Sink) {
        let Self { authorities, client } = self;
        for authority in authorities {
            out.message(1, authority);
        }
        if let Some(client) = client {
            out.message(2, client);
        }
    }
}

impl Fields for ClientCertificate {
    fn write(&self, out: &mut impl Sink) {
        let Self { chain, key } = self;
        for certificate in chain {
            out.message(1, certificate);
        }
        out.message(2, key);
    }
}

impl Fields for Certificate {
    fn write(&self, out: &mut impl Sink) {
        let Self { der, subject, expires_at } = self;
        out.bytes(1, der);
        out.text(2, subject);
        out.time(3, *expires_at);
    }
}
