//! A virtual address: `"192.0.2.10/24"`, or a table with more to say.

use std::net::IpAddr;

use ::toml::de::DeValue;
use locum_plan::{AddressDetails, Name, Scope, VirtualAddress};

use crate::field::Field;
use crate::settings::form::{Form, SWITCH, Schema, TEXT, ip_address, list, text, toml_only};
use crate::settings::row::{Noun, Setting, Unset, field};
use crate::span::At;
use crate::toml::reader::{Key, Reader, Value};
use crate::values;

#[derive(Clone, Default, Debug)]
pub(crate) struct ParsedAddress {
    pub address: Field<VirtualAddress>,
    pub device: Field<String>,
    pub label: Field<String>,
    pub scope: Field<Scope>,
    pub broadcast: Field<IpAddr>,
    pub duplicate_detection: Field<bool>,
    pub prefix_route: Field<bool>,
}

/// A list of addresses.
pub(crate) const ADDRESSES: Form<Vec<At<VirtualAddress>>> = list(
    "a list of addresses, as in [\"192.0.2.10/24\"]",
    Schema::List(&Schema::Any(&[Schema::Text, Schema::Table("address")])),
    |reader, value, key| reader.each(value, key, |reader, item| read(reader, item, key)),
);

pub(crate) static ADDRESS: Noun<ParsedAddress> = Noun {
    name: "address",
    head: "addresses = [{ … }]",
    what: "an address",
    about: "A virtual address with more to say than its prefix length.",
    rows: &[&VALUE, &DEVICE, &LABEL, &SCOPE, &BROADCAST, &DAD, &PREFIX_ROUTE],
};

static VALUE: Setting<ParsedAddress, VirtualAddress> = Setting::new(
    "address",
    toml_only(
        "an address with a prefix length, as in \"192.0.2.10/24\"",
        Schema::Text,
        |reader, value, key| reader.parsed(value, key, values::virtual_address),
        |held| format!("\"{}/{}\"", held.address, held.prefix),
    ),
    field!(ParsedAddress, VirtualAddress, address),
    Unset::Required,
    "The address; without a prefix length /32, for IPv6 /128.",
);

static DEVICE: Setting<ParsedAddress, String> = Setting::new(
    "device",
    text("the name of an interface in quotes"),
    field!(ParsedAddress, String, device),
    Unset::Nothing("the interface of the instance"),
    "Interface to put it on.",
)
.per_node();

static LABEL: Setting<ParsedAddress, String> = Setting::new(
    "label",
    TEXT,
    field!(ParsedAddress, String, label),
    Unset::Nothing("none"),
    "Label of an IPv4 address, 1 to 15 characters, as older programs show it.",
);

static SCOPE: Setting<ParsedAddress, Scope> = Setting::new(
    "scope",
    Form::Words(&[
        ("global", Scope::Global),
        ("site", Scope::Site),
        ("link", Scope::Link),
        ("host", Scope::Host),
    ]),
    field!(ParsedAddress, Scope, scope),
    Unset::Value(|_| Scope::Global, "valid everywhere, as an address of a service is"),
    "Scope of an IPv4 address in the kernel.",
);

static BROADCAST: Setting<ParsedAddress, IpAddr> = Setting::new(
    "broadcast",
    ip_address("an IPv4 address in quotes"),
    field!(ParsedAddress, IpAddr, broadcast),
    Unset::Nothing("none"),
    "Broadcast address of an IPv4 address.",
);

static DAD: Setting<ParsedAddress, bool> = Setting::new(
    "dad",
    SWITCH,
    field!(ParsedAddress, bool, duplicate_detection),
    Unset::Value(|_| false, "the election decides who has it, and a new master must not wait"),
    "IPv6 duplicate address detection.",
);

static PREFIX_ROUTE: Setting<ParsedAddress, bool> = Setting::new(
    "prefix_route",
    SWITCH,
    field!(ParsedAddress, bool, prefix_route),
    Unset::Value(|_| true, "as the kernel does for any address"),
    "The kernel adds the route of its prefix.",
);

fn read(reader: &mut Reader<'_>, value: &Value<'_>, key: Key<'_>) -> Option<VirtualAddress> {
    if let DeValue::String(_) = value.get_ref() {
        return reader.parsed(value, key, values::virtual_address);
    }
    let shape = "a list of texts as in \"192.0.2.10/24\", or of tables with `address`";
    let mut table = ParsedAddress::default();
    let span = ADDRESS.open(reader, value, Key { shape, ..key }, &mut table)?;
    if table.address.is_absent() {
        reader.report.error(span, "missing-key", "an address table has no `address`");
    }
    let base = table.address.value()?.clone();
    let name = |text: &String| Name::from(text.as_str());
    let mut address = VirtualAddress {
        scope: table.scope.value().copied().unwrap_or_default(),
        duplicate_detection: table.duplicate_detection.value().copied().unwrap_or_default(),
        no_prefix_route: table.prefix_route.value().is_some_and(|wanted| !wanted),
        ..base
    };
    address.detail(|all| {
        *all = AddressDetails {
            device: table.device.value().map(name),
            broadcast: table.broadcast.value().copied(),
            label: table.label.value().map(name),
        };
    });
    Some(address)
}
