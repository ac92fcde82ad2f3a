//! Whether the servers keep what a durability level promises.
