//! What an instance tracks, and the weight of it.

use ::toml::de::DeValue;
use locum_plan::{Name, Track, Tracked, Weight};

use crate::field::Field;
use crate::settings::form::{Form, SWITCH, Schema, list, text, toml_only};
use crate::settings::row::{Noun, Setting, Unset, field};
use crate::span::At;
use crate::toml::reader::{Key, Reader, Value};

#[derive(Clone, Default, Debug)]
pub(crate) struct ParsedTrack {
    pub check: Field<String>,
    pub interface: Field<String>,
    pub service: Field<String>,
    pub haproxy: Field<String>,
    pub weight: Field<Weight>,
}

#[derive(Clone, Default, Debug)]
pub(crate) struct ParsedWeight {
    pub value: Field<i16>,
    pub reverse: Field<bool>,
}

/// Largest weight: 254 less 1, so that it moves a priority across the whole range.
pub(crate) const MAX_WEIGHT: i64 = 253;

/// A list of tracked objects.
pub(crate) const TRACKS: Form<Vec<At<Track>>> = list(
    "a list of checks by their names, or of { check = NAME }, { interface = NAME }, \
     { service = NAME } or { haproxy = NAME } with a weight",
    Schema::List(&Schema::Any(&[Schema::Text, Schema::Table("track")])),
    |reader, value, key| reader.each(value, key, |reader, item| read(reader, item, key)),
);

pub(crate) static TRACK: Noun<ParsedTrack> = Noun {
    name: "track",
    head: "track = [{ … }]",
    what: "a tracked object",
    about: "One object that an instance tracks. It names exactly one.",
    rows: &[&CHECK, &INTERFACE, &SERVICE, &HAPROXY, &TRACK_WEIGHT],
};

static CHECK: Setting<ParsedTrack, String> = Setting::new(
    "check",
    text("the name of a check in quotes"),
    field!(ParsedTrack, String, check),
    Unset::Nothing("none"),
    "A check of this file.",
);

static INTERFACE: Setting<ParsedTrack, String> = Setting::new(
    "interface",
    text("the name of an interface in quotes"),
    field!(ParsedTrack, String, interface),
    Unset::Nothing("none"),
    "A network interface, which is up while it has a carrier.",
);

static SERVICE: Setting<ParsedTrack, String> = Setting::new(
    "service",
    text("the name of a service in quotes"),
    field!(ParsedTrack, String, service),
    Unset::Nothing("none"),
    "A service of this file, which is up while this node can serve it, and where it does, while \
     clients are answered.",
);

static HAPROXY: Setting<ParsedTrack, String> = Setting::new(
    "haproxy",
    text("the name of a haproxy in quotes"),
    field!(ParsedTrack, String, haproxy),
    Unset::Nothing("none"),
    "A HAProxy of this file, as a service.",
);

static TRACK_WEIGHT: Setting<ParsedTrack, Weight> = Setting::new(
    "weight",
    WEIGHT_FORM,
    field!(ParsedTrack, Weight, weight),
    Unset::Nothing(
        "that of the check; of an interface 0; a service or HAProxy is followed as \
         `track_services` says, and counts 1",
    ),
    "What it does to the priority of this instance.",
);

fn read(reader: &mut Reader<'_>, value: &Value<'_>, key: Key<'_>) -> Option<Track> {
    if let DeValue::String(name) = value.get_ref() {
        return Some(Track { object: Tracked::Check(name.as_ref().into()), weight: None });
    }
    let mut table = ParsedTrack::default();
    let span = TRACK.open(reader, value, key, &mut table)?;
    let ParsedTrack { check, interface, service, haproxy, .. } = &table;
    let named = [check, interface, service, haproxy];
    if named.iter().filter(|field| !field.is_absent()).count() != 1 {
        let text = "a tracked object is one `check`, `interface`, `service` or `haproxy`";
        reader.report.error(span, "missing-key", text);
        return None;
    }
    let kinds: [fn(Name) -> Tracked; 4] =
        [Tracked::Check, Tracked::Interface, Tracked::Service, Tracked::Haproxy];
    let mut objects = named.into_iter().zip(kinds);
    let object = objects.find_map(|(field, kind)| Some(kind(field.value()?.as_str().into())))?;
    if table.weight.is_bad() {
        return None;
    }
    Some(Track { object, weight: table.weight.value().copied() })
}

/// `-10`, or `{ value = 10, reverse = true }`.
pub(crate) const WEIGHT_FORM: Form<Weight> = toml_only(
    "a whole number from -253 to 253, or { value = NUMBER, reverse = true }",
    Schema::Any(&[Schema::Whole(-MAX_WEIGHT, MAX_WEIGHT), Schema::Table("weight")]),
    read_weight,
    |weight| weight.value.to_string(),
);

pub(crate) static WEIGHT: Noun<ParsedWeight> = Noun {
    name: "weight",
    head: "weight = { … }",
    what: "a weight",
    about: "A weight that may be reversed. 0 failing is a fault, a positive one is added while up, a \
            negative one is subtracted while down.",
    rows: &[&VALUE, &REVERSE],
};

static VALUE: Setting<ParsedWeight, i16> = Setting::new(
    "value",
    Form::Whole {
        low: -MAX_WEIGHT,
        high: MAX_WEIGHT,
        make: |number| i16::try_from(number).ok(),
        number: |value| *value as i64,
    },
    field!(ParsedWeight, i16, value),
    Unset::Required,
    "What is added to the priority, or taken from it.",
);

static REVERSE: Setting<ParsedWeight, bool> = Setting::new(
    "reverse",
    SWITCH,
    field!(ParsedWeight, bool, reverse),
    Unset::Value(|_| false, "a success is the good state"),
    "Up and down change places.",
);

fn read_weight(reader: &mut Reader<'_>, value: &Value<'_>, key: Key<'_>) -> Option<Weight> {
    if !matches!(value.get_ref(), DeValue::Table(_)) {
        let number = reader.integer(value, key, -MAX_WEIGHT..=MAX_WEIGHT)?;
        return Some(Weight { value: i16::try_from(number).ok()?, reverse: false });
    }
    let mut table = ParsedWeight::default();
    let span = WEIGHT.open(reader, value, key, &mut table)?;
    if table.value.is_absent() {
        reader.report.error(span, "missing-key", "a weight has no `value`");
    }
    let reverse = table.reverse.value().copied().unwrap_or_default();
    Some(Weight { value: *table.value.value()?, reverse })
}
