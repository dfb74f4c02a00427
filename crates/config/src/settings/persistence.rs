//! How long and by what a client is kept on its server.

use std::net::Ipv4Addr;
use std::time::Duration;

use ::toml::de::DeValue;

use crate::field::Field;
use crate::keepalived::blocks::Statement;
use crate::keepalived::lowering::Lowering;
use crate::settings::form::{Form, Schema, TIME, ValueReading, text, toml_only};
use crate::settings::row::{Block, Keyword, Noun, Setting, Unset, field};
use crate::span::At;
use crate::toml::reader::{Key, Reader, Value};

#[derive(Clone, PartialEq, Default, Debug)]
pub(crate) struct ParsedPersistence {
    pub timeout: Field<Duration>,
    pub granularity: Field<u8>,
    pub engine: Field<String>,
}

pub(crate) const PERSISTENCE_FORM: Form<ParsedPersistence> = toml_only(
    "a duration, as in \"5m\", or a table as in { timeout = \"5m\", granularity = 24 }",
    Schema::Any(&[Schema::Duration, Schema::Table("persistence")]),
    read,
    |_| String::new(),
);

pub(crate) static PERSISTENCE: Noun<ParsedPersistence> = Noun {
    name: "persistence",
    head: "persistence = { … }",
    what: "a persistence",
    about: "How long, and by what, a client is kept on the server that it came to first.",
    rows: &[&TIMEOUT, &GRANULARITY, &ENGINE],
};

pub(crate) static TIMEOUT: Setting<ParsedPersistence, Duration> = Setting::new(
    "timeout",
    TIME,
    field!(ParsedPersistence, Duration, timeout),
    Unset::Value(
        |dialect| match dialect {
            crate::dialect::Dialect::Toml => Duration::from_secs(300),
            crate::dialect::Dialect::Keepalived => Duration::from_secs(360),
        },
        "a visit with its pauses",
    ),
    "How long after its last connection a client comes to the same server; whole seconds.",
)
.keywords(&[Keyword::Own(Block::VirtualServer, "persistence_timeout")]);

/// A prefix length; of IPv4 also a network mask.
const PREFIX: Form<u8> = Form::Read(ValueReading {
    shape: "a prefix length from 1 to 128, or a mask as in \"255.255.255.0\"",
    schema: Schema::Any(&[Schema::Whole(1, 128), Schema::Text]),
    toml: |reader, value, key| match value.get_ref() {
        DeValue::String(_) => reader.parsed(value, key, prefix_of_mask),
        _other => {
            let number = reader.integer(value, key, 1..=128)?;
            u8::try_from(number).ok()
        }
    },
    line: Some(mask_or_prefix),
    spell: |prefix| prefix.to_string(),
});

pub(crate) static GRANULARITY: Setting<ParsedPersistence, u8> = Setting::new(
    "granularity",
    PREFIX,
    field!(ParsedPersistence, u8, granularity),
    Unset::Value(|_| 128, "the whole address of a client, IPv4 or IPv6"),
    "Clients whose addresses are equal in so many leading bits stay together.",
)
.keywords(&[Keyword::Plain(Block::VirtualServer, "persistence_granularity")]);

static ENGINE: Setting<ParsedPersistence, String> = Setting::new(
    "engine",
    text("the name of a persistence engine, as in \"sip\""),
    field!(ParsedPersistence, String, engine),
    Unset::Nothing("none"),
    "With IPVS: what tells one client from another beside the address; \"sip\" is the Call-ID.",
)
.keywords(&[Keyword::Plain(Block::VirtualServer, "persistence_engine")]);

fn read(reader: &mut Reader<'_>, value: &Value<'_>, key: Key<'_>) -> Option<ParsedPersistence> {
    let mut parsed = ParsedPersistence::default();
    if let DeValue::Table(_) = value.get_ref() {
        PERSISTENCE.open(reader, value, key, &mut parsed)?;
    } else {
        let span = reader.span(value.span());
        parsed.timeout = Field::Given(At::new(reader.duration(value, key)?, span));
    }
    Some(parsed)
}

fn mask_or_prefix(lowering: &mut Lowering<'_>, statement: &Statement) -> Option<At<u8>> {
    let word = statement.arguments().first()?;
    if !word.text.contains('.') {
        return lowering.first_number(statement, 1..=128);
    }
    match prefix_of_mask(&word.text) {
        Ok(prefix) => Some(At::new(prefix, word.span)),
        Err(reason) => {
            lowering.bad_value(word, reason);
            None
        }
    }
}

/// `255.255.255.0` is 24.
fn prefix_of_mask(text: &str) -> Result<u8, String> {
    let mask: Ipv4Addr = text.parse().map_err(|_| format!("`{text}` is not a network mask"))?;
    let bits = mask.to_bits();
    // All ones come before all zeros.
    if bits.leading_ones() + bits.trailing_zeros() != 32 || bits == 0 {
        return Err(format!("`{text}` is not a network mask"));
    }
    u8::try_from(bits.leading_ones()).map_err(|_| format!("`{text}` is not a network mask"))
}

#[cfg(test)]
mod tests {
    use super::prefix_of_mask;

    #[test]
    fn a_mask_is_ones_and_then_zeros() {
        assert_eq!(prefix_of_mask("255.255.255.0"), Ok(24));
        assert_eq!(prefix_of_mask("255.255.255.255"), Ok(32));
        for text in ["255.0.255.0", "0.0.0.0", "0.0.0.255", "255.255.255", "", "::"] {
            assert!(prefix_of_mask(text).is_err(), "{text}");
        }
    }
}
