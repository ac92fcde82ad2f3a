//! How an endpoint and we make sure of each other: from what a caller sends to what is kept, and how
//! that is shown. Secrets are sealed, and never shown.

pub(super) mod tls;

use std::collections::BTreeMap;

use fanfare_domain::{
    Endpoint, EndpointId,
    endpoint::{Authentication, ClientCredentials, CredentialsPlace, authentication_owner},
    seal::{Clear, Sealed},
};
use serde::{Deserialize, Deserializer, Serialize};
use utoipa::ToSchema;

use super::draft::Maker;
use crate::error::ApiError;

/// The longest secret, in bytes: what is made of it has to fit a header.
const SECRET_BYTES_MAX: usize = 2_048;
/// The longest name or id, in bytes.
const ID_BYTES_MAX: usize = 256;
/// The most scopes, and the longest one, in bytes.
const SCOPES_MAX: usize = 32;
const SCOPE_BYTES_MAX: usize = 256;
/// The most parameters, and the longest value of one, in bytes.
const PARAMETERS_MAX: usize = 8;
const PARAMETER_BYTES_MAX: usize = 1_024;
/// The header in which requests show who they are from.
const HEADER: &str = "authorization";
/// What a request for a token says by itself.
const RESERVED: [&str; 4] = ["client_id", "client_secret", "grant_type", "scope"];

/// What requests show, in the header `authorization`.
#[derive(Clone, Deserialize, ToSchema)]
#[serde(tag = "type", rename_all = "lowercase")]
pub(crate) enum NewAuthentication {
    /// A token that stays the same.
    Bearer(NewBearer),
    /// A name and a password.
    Basic(NewBasic),
    /// A token that is asked for with client credentials (RFC 6749, section 4.4), and used until
    /// shortly before its time is over.
    OAuth2(Box<NewClientCredentials>),
}

/// A token that stays the same.
#[derive(Clone, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct NewBearer {
    /// The token. It may be left out in a change: then it stays.
    #[serde(default, deserialize_with = "secret")]
    #[schema(value_type = Option<String>, write_only)]
    token: Option<Clear>,
}

/// A name and a password.
#[derive(Clone, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct NewBasic {
    /// The name; it has no colon.
    username: String,
    /// The password. It may be left out in a change: then it stays.
    #[serde(default, deserialize_with = "secret")]
    #[schema(value_type = Option<String>, write_only)]
    password: Option<Clear>,
}

/// With what a token is asked for.
#[derive(Clone, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct NewClientCredentials {
    /// Where tokens are asked for. The same rules hold as for the endpoint's own URL.
    #[schema(example = "https://login.example.com/oauth2/token")]
    token_url: String,
    /// Who we are there.
    client_id: String,
    /// What proves it. It may be left out in a change that leaves `token_url` as it is: then it
    /// stays.
    #[serde(default, deserialize_with = "secret")]
    #[schema(value_type = Option<String>, write_only)]
    client_secret: Option<Clear>,
    /// What the token is to allow: up to 32.
    #[serde(default)]
    scopes: Vec<String>,
    /// What else is asked with, for example `audience` or `resource`: up to 8.
    #[serde(default)]
    parameters: BTreeMap<String, String>,
    /// Where id and secret stand; `header` if left out.
    #[serde(default)]
    credentials_in: PlaceName,
}

/// Where a client's id and secret stand in a request for a token.
#[derive(Clone, Copy, Debug, Default, Deserialize, Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
#[schema(as = CredentialsPlace)]
pub(crate) enum PlaceName {
    /// In the header `authorization`.
    #[default]
    Header,
    /// In the body.
    Body,
}

/// What requests show, without the secret.
#[derive(Debug, Serialize, ToSchema)]
#[serde(tag = "type", rename_all = "lowercase")]
#[schema(as = Authentication)]
pub(crate) enum AuthenticationView {
    /// A token that stays the same.
    Bearer,
    /// A name and a password.
    Basic {
        /// The name.
        username: String,
    },
    /// A token that is asked for with client credentials.
    OAuth2 {
        /// Where tokens are asked for.
        token_url: String,
        /// Who we are there.
        client_id: String,
        /// What the token is to allow.
        scopes: Vec<String>,
        /// What else is asked with.
        parameters: BTreeMap<String, String>,
        /// Where id and secret stand.
        credentials_in: PlaceName,
    },
}

/// Reads a secret, which is erased when it is dropped.
pub(super) fn secret<'de, D: Deserializer<'de>>(source: D) -> Result<Option<Clear>, D::Error> {
    Option::<String>::deserialize(source).map(|text| text.map(Clear::new))
}

impl NewAuthentication {
    /// Checks what a caller sent, and seals its secret. One that is left out stays as it is
    /// `before`.
    pub(super) fn admit(
        &self,
        maker: Maker<'_>,
        endpoint: EndpointId,
        before: Option<&Authentication>,
        chance: &impl Fn() -> [u8; 56],
    ) -> Result<Authentication, ApiError> {
        self.admit_members(maker, endpoint, before, chance)
            .map_err(|refused| refused.within("authentication"))
    }

    fn admit_members(
        &self,
        maker: Maker<'_>,
        endpoint: EndpointId,
        before: Option<&Authentication>,
        chance: &impl Fn() -> [u8; 56],
    ) -> Result<Authentication, ApiError> {
        let seal = |field: &str, given: Option<&Clear>| match (given, self.kept(maker, before)) {
            (Some(given), _) => {
                visible(field, given.expose(), SECRET_BYTES_MAX)?;
                Ok(maker.seal(&authentication_owner(endpoint), given, chance))
            }
            (None, Some(kept)) => Ok(kept.clone()),
            (None, None) => Err(ApiError::value(field, "it is missing")),
        };
        match self {
            Self::Bearer(new) => {
                if new.token.as_ref().is_some_and(|token| token.expose().contains(' ')) {
                    return Err(ApiError::value("token", "it has spaces"));
                }
                Ok(Authentication::Bearer { token: seal("token", new.token.as_ref())? })
            }
            Self::Basic(new) => {
                visible("username", &new.username, ID_BYTES_MAX)?;
                if new.username.contains(':') {
                    return Err(ApiError::value("username", "it has a colon"));
                }
                let password = seal("password", new.password.as_ref())?;
                Ok(Authentication::Basic { username: new.username.clone(), password })
            }
            Self::OAuth2(new) => {
                let token_url = maker.urls.admit(&new.token_url);
                let token_url = token_url.map_err(|why| ApiError::value("token_url", why))?;
                new.check()?;
                Ok(Authentication::OAuth2(Box::new(ClientCredentials {
                    token_url: String::from(token_url.as_str()),
                    client_id: new.client_id.clone(),
                    client_secret: seal("client_secret", new.client_secret.as_ref())?,
                    scopes: new.scopes.clone(),
                    parameters: new.parameters.clone(),
                    place: new.credentials_in.into(),
                })))
            }
        }
    }

    /// Returns the secret that stays if none is given. To another server than before it is not sent
    /// unless somebody says it who knows it.
    fn kept<'a>(&self, maker: Maker<'_>, before: Option<&'a Authentication>) -> Option<&'a Sealed> {
        match (self, before?) {
            (Self::Bearer(_), Authentication::Bearer { token }) => Some(token),
            (Self::Basic(_), Authentication::Basic { password, .. }) => Some(password),
            (Self::OAuth2(new), Authentication::OAuth2(kept)) => {
                let same = maker.urls.admit(&new.token_url);
                same.is_ok_and(|url| url.as_str() == kept.token_url).then_some(&kept.client_secret)
            }
            (Self::Bearer(_) | Self::Basic(_) | Self::OAuth2(_), _) => None,
        }
    }
}

impl NewClientCredentials {
    fn check(&self) -> Result<(), ApiError> {
        visible("client_id", &self.client_id, ID_BYTES_MAX)?;
        if self.scopes.len() > SCOPES_MAX {
            return Err(ApiError::value("scopes", format_args!("they are more than {SCOPES_MAX}")));
        }
        for scope in &self.scopes {
            visible("scopes", scope, SCOPE_BYTES_MAX)?;
            if scope.contains([' ', '"', '\\']) {
                let why = "a scope has no spaces, quotation marks or backslashes";
                return Err(ApiError::value("scopes", why));
            }
        }
        if self.parameters.len() > PARAMETERS_MAX {
            return Err(ApiError::value(
                "parameters",
                format_args!("they are more than {PARAMETERS_MAX}"),
            ));
        }
        for (name, text) in &self.parameters {
            visible("parameters", name, ID_BYTES_MAX)?;
            visible("parameters", text, PARAMETER_BYTES_MAX)?;
            if RESERVED.contains(&name.as_str()) {
                return Err(ApiError::value("parameters", format_args!("{name} is said already")));
            }
        }
        Ok(())
    }
}

/// Refuses what would say twice, or not at all, in one header who a request is from.
pub(super) fn check_header(maker: Maker<'_>, endpoint: &Endpoint) -> Result<(), ApiError> {
    if endpoint.security.authentication.is_none() {
        return Ok(());
    }
    if endpoint.headers.contains_key(HEADER) {
        let why = "the endpoint has a header `authorization` of its own: take that away (null)";
        return Err(ApiError::value("authentication", why));
    }
    let admitted = maker.profile.header_admitted(HEADER, "");
    admitted.map_err(|why| ApiError::value("authentication", why))
}

/// Admits a text of 1 to `max` visible characters and spaces of ASCII.
fn visible(field: &str, text: &str, max: usize) -> Result<(), ApiError> {
    if !(1..=max).contains(&text.len()) {
        return Err(ApiError::value(field, format_args!("it has 1 to {max} bytes")));
    }
    if !text.bytes().all(|byte| byte == b' ' || byte.is_ascii_graphic()) {
        return Err(ApiError::value(field, "it has other characters than visible ones of ASCII"));
    }
    Ok(())
}

impl AuthenticationView {
    pub(super) fn of(authentication: &Authentication) -> Self {
        match authentication {
            Authentication::Bearer { token: _ } => Self::Bearer,
            Authentication::Basic { username, password: _ } => {
                Self::Basic { username: username.clone() }
            }
            Authentication::OAuth2(credentials) => Self::OAuth2 {
                token_url: credentials.token_url.clone(),
                client_id: credentials.client_id.clone(),
                scopes: credentials.scopes.clone(),
                parameters: credentials.parameters.clone(),
                credentials_in: match credentials.place {
                    CredentialsPlace::Header => PlaceName::Header,
                    CredentialsPlace::Body => PlaceName::Body,
                },
            },
        }
    }
}

impl From<PlaceName> for CredentialsPlace {
    fn from(name: PlaceName) -> Self {
        match name {
            PlaceName::Header => Self::Header,
            PlaceName::Body => Self::Body,
        }
    }
}

#[cfg(test)]
mod tests;
