//! Enums on the wire: one table for each, read in both directions.

use fanfare_domain::{
    BreakerState, Conclusion, EndpointState, Fault, PauseMode, Role,
    config::Validation,
    endpoint::{CredentialsPlace, DisableReason, Ordering, RatePeriod},
    fact::{ConclusionReason, DeferReason},
    feed::Reason,
    tenant::UnknownTypes,
};
use prost::UnknownEnumValue;

use crate::{error::DecodeError, wire};

/// One of several known values.
pub(crate) trait Choice: Copy {
    /// Returns the value's number.
    fn to_wire(self) -> u64;

    /// Returns the value of that number.
    fn from_wire(number: i32, field: &'static str) -> Result<Self, DecodeError>;

    /// The same of a field that came later: not set, it means the default.
    fn from_wire_or_default(number: i32, field: &'static str) -> Result<Self, DecodeError>
    where
        Self: Default,
    {
        if number == 0 { Ok(Self::default()) } else { Self::from_wire(number, field) }
    }
}

/// Pairs the values of a domain type with those of a generated one. Both matches are exhaustive,
/// so a value without a pair does not compile.
macro_rules! choice {
    ($type:ty, $wire:ty { $($($domain:ident)::+ $(($inner:path))? => $name:ident,)+ }) => {
        impl Choice for $type {
            fn to_wire(self) -> u64 {
                match self {
                    $($($domain)::+ $(($inner))? => <$wire>::$name as u64,)+
                }
            }

            fn from_wire(number: i32, field: &'static str) -> Result<Self, DecodeError> {
                match <$wire>::try_from(number) {
                    $(Ok(<$wire>::$name) => Ok($($domain)::+ $(($inner))?),)+
                    Ok(<$wire>::Unspecified) => Err(DecodeError::Missing { field: field.into() }),
                    Err(UnknownEnumValue(value)) => {
                        Err(DecodeError::UnknownValue { field: field.into(), value })
                    }
                }
            }
        }
    };
}

choice!(Fault, wire::Fault {
    Fault::TimedOut => TimedOut,
    Fault::DnsFailed => DnsFailed,
    Fault::ConnectFailed => ConnectFailed,
    Fault::TlsFailed => TlsFailed,
    Fault::CertificateInvalid => CertificateInvalid,
    Fault::ConnectionLost => ConnectionLost,
    Fault::ProtocolError => ProtocolError,
    Fault::AddressForbidden => AddressForbidden,
    Fault::RequestInvalid => RequestInvalid,
    Fault::AuthenticationFailed => AuthenticationFailed,
});

choice!(DeferReason, wire::DeferReason {
    DeferReason::LaneFull => LaneFull,
    DeferReason::EventUnavailable => EventUnavailable,
    DeferReason::RateLimit => RateLimit,
    DeferReason::Breaker => Breaker,
    DeferReason::RetryAfter => RetryAfter,
    DeferReason::TenantRateLimit => TenantRateLimit,
});

choice!(Conclusion, wire::Conclusion {
    Conclusion::Delivered => Delivered,
    Conclusion::Exhausted => Exhausted,
    Conclusion::Refused => Refused,
    Conclusion::Cancelled => Cancelled,
});

choice!(ConclusionReason, wire::ConclusionReason {
    ConclusionReason::Outcome => Outcome,
    ConclusionReason::AttemptsSpent => AttemptsSpent,
    ConclusionReason::Expired => Expired,
    ConclusionReason::EndpointDeleted => EndpointDeleted,
    ConclusionReason::EndpointDisabled => EndpointDisabled,
    ConclusionReason::EndpointPaused => EndpointPaused,
    ConclusionReason::ByHand => ByHand,
    ConclusionReason::EventGone => EventGone,
});

choice!(EndpointState, wire::EndpointState {
    EndpointState::Active => Active,
    EndpointState::Paused(PauseMode::Skip) => PausedSkip,
    EndpointState::Paused(PauseMode::Hold) => PausedHold,
    EndpointState::Disabled(DisableReason::ByHand) => DisabledByHand,
    EndpointState::Disabled(DisableReason::Gone) => DisabledGone,
    EndpointState::Disabled(DisableReason::Failing) => DisabledFailing,
});

choice!(RatePeriod, wire::RatePeriod {
    RatePeriod::Second => Second,
    RatePeriod::Minute => Minute,
});

choice!(Ordering, wire::Ordering {
    Ordering::None => None,
    Ordering::Key => Key,
    Ordering::All => All,
});

choice!(CredentialsPlace, wire::CredentialsPlace {
    CredentialsPlace::Header => Header,
    CredentialsPlace::Body => Body,
});

choice!(Reason, wire::FeedReason {
    Reason::Backlog => Backlog,
    Reason::Hold => Hold,
    Reason::Ordered => Ordered,
});

choice!(UnknownTypes, wire::UnknownTypes {
    UnknownTypes::Allowed => Allowed,
    UnknownTypes::Refused => Refused,
});

choice!(Validation, wire::Validation {
    Validation::Off => Off,
    Validation::Report => Report,
    Validation::Enforce => Enforce,
});

choice!(BreakerState, wire::BreakerPhase {
    BreakerState::Closed => Closed,
    BreakerState::Open => Open,
    BreakerState::HalfOpen => HalfOpen,
});

choice!(Role, wire::Role {
    Role::Admin => Admin,
    Role::Publish => Publish,
    Role::Read => Read,
});
