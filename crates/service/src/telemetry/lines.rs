//! One set of names for what a log line is about: `tenant_id`, `event_id`, `endpoint_id`,
//! `delivery_id`, `trace_id`, and `span_id` where there is a span of its own.

use fanfare_domain::{DeliveryRef, TraceContext, TraceId, trace::Place};

/// Returns the trace of a delivery, whose event came with `context`.
pub fn trace_id(delivery: &DeliveryRef, context: &TraceContext) -> TraceId {
    Place::of(delivery.event, context, delivery.generation).trace
}

/// Writes a line about a delivery, with its ids, and what else is given.
///
/// ```
/// # use fanfare_domain::{DeliveryRef, TraceContext};
/// # fn tell(delivery: &DeliveryRef, trace: &TraceContext) {
/// fanfare_service::delivery_line!(
///     warn, (delivery, trace), "an event could not be read", attempt = 3,
/// );
/// # }
/// ```
#[macro_export]
macro_rules! delivery_line {
    ($level:ident, ($delivery:expr, $context:expr), $message:literal $(, $($field:tt)*)?) => {
        ::tracing::$level!(
            tenant_id = %$delivery.tenant,
            event_id = %$delivery.event,
            endpoint_id = %$delivery.endpoint,
            delivery_id = %$delivery.id,
            trace_id = %$crate::telemetry::trace_id(&$delivery, &$context),
            $($($field)*)?
            $message
        )
    };
}
