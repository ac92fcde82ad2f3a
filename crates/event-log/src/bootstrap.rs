//! Makes and migrates the streams: idempotent, and safe to run by all services at once.
