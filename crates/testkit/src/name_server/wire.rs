//! The form of messages (RFC 1035), as far as it is needed here.

use std::net::IpAddr;

/// The length of a message's head, in bytes.
const HEAD: usize = 12;
/// Types of records.
const A: u16 = 1;
const CNAME: u16 = 5;
const AAAA: u16 = 28;
/// The class of the Internet.
const INTERNET: u16 = 1;
/// Flags of an answer: it is one, recursion was wanted and is available.
const ANSWER: u16 = 0x8180;
/// The flag of an answer that was cut short.
const TRUNCATED: u16 = 0x0200;

/// A question about a name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Question {
    /// The message's id.
    pub(super) id: u16,
    /// The name as it was written, without the last dot.
    pub(super) written: String,
    /// The name in lower case.
    pub(super) name: String,
    /// The type of record.
    pub(super) kind: u16,
}

/// What an answer says.
pub(super) enum Outcome {
    /// These addresses, as far as they are of the type that was asked for.
    Addresses(Vec<IpAddr>),
    /// A code of failure.
    Code(u16),
    /// That it is to be asked for over TCP.
    Truncated,
}

impl Question {
    /// Reads a message; `None` if it is none with a question.
    pub(super) fn read(message: &[u8]) -> Option<Self> {
        let id = u16::from_be_bytes([*message.first()?, *message.get(1)?]);
        let (mut labels, mut rest) = (Vec::new(), message.get(HEAD..)?);
        loop {
            let (length, after) = rest.split_first()?;
            if *length == 0 {
                rest = after;
                break;
            }
            let (label, after) = after.split_at_checked(usize::from(*length))?;
            labels.push(String::from_utf8_lossy(label).into_owned());
            rest = after;
        }
        let kind = u16::from_be_bytes([*rest.first()?, *rest.get(1)?]);
        let written = labels.join(".");
        let name = written.to_ascii_lowercase();
        Some(Self { id, written, name, kind })
    }

    /// Writes the answer. The aliases lead from the name to whose addresses they are.
    pub(super) fn answer(&self, aliases: &[String], outcome: &Outcome) -> Vec<u8> {
        let (flags, addresses) = match outcome {
            Outcome::Addresses(addresses) => (ANSWER, addresses.as_slice()),
            Outcome::Code(code) => (ANSWER | code, [].as_slice()),
            Outcome::Truncated => (ANSWER | TRUNCATED, [].as_slice()),
        };
        let records: Vec<Vec<u8>> =
            addresses.iter().filter_map(|address| self.record(*address)).collect();
        let count = u16::try_from(aliases.len() + records.len()).unwrap_or(u16::MAX);
        let mut message = Vec::new();
        for number in [self.id, flags, 1, count, 0, 0] {
            message.extend(number.to_be_bytes());
        }
        message.extend(encode(&self.written));
        message.extend(self.kind.to_be_bytes());
        message.extend(INTERNET.to_be_bytes());
        let mut owner = self.written.as_str();
        for alias in aliases {
            message.extend(resource(owner, CNAME, &encode(alias)));
            owner = alias;
        }
        for record in records {
            let kind = if record.len() == 4 { A } else { AAAA };
            message.extend(resource(owner, kind, &record));
        }
        message
    }

    /// The bytes of an address, if it is of the type that was asked for.
    fn record(&self, address: IpAddr) -> Option<Vec<u8>> {
        match (address, self.kind) {
            (IpAddr::V4(address), A) => Some(address.octets().to_vec()),
            (IpAddr::V6(address), AAAA) => Some(address.octets().to_vec()),
            (IpAddr::V4(_) | IpAddr::V6(_), _) => None,
        }
    }
}

/// Writes a record that may not be kept.
fn resource(owner: &str, kind: u16, data: &[u8]) -> Vec<u8> {
    let mut record = encode(owner);
    record.extend(kind.to_be_bytes());
    record.extend(INTERNET.to_be_bytes());
    record.extend(0_u32.to_be_bytes());
    record.extend(u16::try_from(data.len()).unwrap_or(u16::MAX).to_be_bytes());
    record.extend(data);
    record
}

/// Writes a name.
fn encode(name: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    for label in name.split('.').filter(|label| !label.is_empty()) {
        bytes.push(u8::try_from(label.len()).unwrap_or(u8::MAX));
        bytes.extend(label.bytes());
    }
    bytes.push(0);
    bytes
}
