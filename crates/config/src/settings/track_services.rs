//! `track_services`: how much what an instance serves counts in the election.

use ::toml::de::DeValue;

use crate::settings::form::{Form, Schema, toml_only};
use crate::span::At;
use crate::toml::reader::{Key, Reader, Value};

/// What of an instance's services and HAProxies decides its place among the nodes.
#[derive(Clone, PartialEq, Debug)]
pub(crate) enum TrackServices {
    /// Each, and they count alike.
    All,
    Nothing,
    /// By name, 0 to 10; those not named count 1.
    Weights(Vec<(At<String>, u8)>),
}

/// A service of this weight counts as much as ten others.
const MOST: i64 = 10;

pub(crate) const TRACK_SERVICES_FORM: Form<TrackServices> = toml_only(
    "true, false, or weights from 0 to 10 by name, as in { www = 2, mail = 0 }",
    Schema::Any(&[Schema::Boolean, Schema::ByName(&Schema::Whole(0, MOST))]),
    read,
    |value| match value {
        TrackServices::All => "true".to_owned(),
        TrackServices::Nothing => "false".to_owned(),
        TrackServices::Weights(weights) => {
            let each = weights.iter().map(|(name, weight)| format!("{} = {weight}", name.value));
            format!("{{ {} }}", each.collect::<Vec<_>>().join(", "))
        }
    },
);

fn read(reader: &mut Reader<'_>, value: &Value<'_>, key: Key<'_>) -> Option<TrackServices> {
    match value.get_ref() {
        DeValue::Boolean(true) => Some(TrackServices::All),
        DeValue::Boolean(false) => Some(TrackServices::Nothing),
        DeValue::Table(entries) => {
            let entries = entries.iter().map(|(name, weight)| {
                let name = At::new(name.get_ref().to_string(), reader.span(name.span()));
                let key = Key { name: &name.value, shape: "a whole number from 0 to 10" };
                let weight = reader.integer(weight, key, 0..=MOST)?;
                Some((name, u8::try_from(weight).ok()?))
            });
            let read: Vec<Option<_>> = entries.collect();
            read.into_iter().collect::<Option<_>>().map(TrackServices::Weights)
        }
        _other => {
            reader.wrong_type(value, key);
            None
        }
    }
}
