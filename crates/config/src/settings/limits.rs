//! Limits of a `[[service]]`: how many connections it may have, and how long one that stands still.

use std::time::Duration;

use locum_plan::ServiceLimits;

use crate::duration;
use crate::field::Field;
use crate::settings::form::{Form, Schema, toml_only, whole};
use crate::settings::row::{FieldAccess, Setting, Unset};

#[derive(Clone, PartialEq, Debug, Default)]
pub(crate) struct ParsedLimits {
    pub connections: Field<u32>,
    pub per_server: Field<u32>,
    pub per_source: Field<u32>,
    pub waiting: Field<u32>,
    pub queue: Field<Duration>,
    pub connect: Field<Duration>,
    pub idle: Field<Duration>,
    pub half_closed: Field<Duration>,
}

/// The end is far above what the descriptors of a host allow.
const CONNECTIONS: Form<u32> = whole(1, 1_000_000);

/// With less than this a time-out would end what is well.
const SHORTEST: Duration = Duration::from_millis(100);

pub(super) const TIMEOUT: Form<Duration> = toml_only(
    "a duration in quotes of at least 100 ms, as in \"30s\"",
    Schema::Duration,
    |reader, value, key| {
        reader.duration(value, key).and_then(|timeout| {
            if timeout < SHORTEST {
                reader.bad_value(value, key, "it is shorter than 100 ms");
                return None;
            }
            Some(timeout)
        })
    },
    |timeout| format!("\"{}\"", duration::spell(*timeout)),
);

pub(crate) const fn max_connections<N>(place: FieldAccess<N, u32>) -> Setting<N, u32> {
    Setting::new(
        "max_connections",
        CONNECTIONS,
        place,
        Unset::Nothing("its share of the descriptors that the proxy may open"),
        "Most client connections at a time, with the built-in proxy or HAProxy. More of them wait; of UDP \
     the client that was heard longest ago gives way. Half of all places of the proxy are divided among the services, \
     the other half goes to whoever needs it, so that no service can take all.",
    )
}

pub(crate) const fn max_connections_per_server<N>(place: FieldAccess<N, u32>) -> Setting<N, u32> {
    Setting::new(
        "max_connections_per_server",
        CONNECTIONS,
        place,
        Unset::Nothing("no limit"),
        "Most connections to one server at a time, with the built-in proxy or HAProxy. A server that has them \
         gets no more; while all have them, clients wait (`queue_timeout`), and new ones of UDP are refused.",
    )
}

pub(crate) const fn max_connections_per_source<N>(place: FieldAccess<N, u32>) -> Setting<N, u32> {
    Setting::new(
        "max_connections_per_source",
        CONNECTIONS,
        place,
        Unset::Nothing("no limit"),
        "Most connections of one client address at a time, with the built-in proxy or HAProxy; more of them are \
     turned away. Clients behind one router have one address.",
    )
}

pub(crate) const fn max_waiting<N>(place: FieldAccess<N, u32>) -> Setting<N, u32> {
    Setting::new(
        "max_waiting",
        CONNECTIONS,
        place,
        Unset::Nothing("as many as the service can have"),
        "Most clients that wait at a time while every server has all the connections that it may have, with the \
     built-in proxy or HAProxy; one more is turned away, an HTTP request with status 503. Not of UDP.",
    )
}

pub(crate) const fn queue_timeout<N>(place: FieldAccess<N, Duration>) -> Setting<N, Duration> {
    Setting::new(
        "queue_timeout",
        TIMEOUT,
        place,
        Unset::Value(|_| ServiceLimits::default().queue, "people wait no longer"),
        "How long a client of the proxy or HAProxy waits while every server has all the connections that it may have \
     (`max_connections` of the server, `max_connections_per_server`), the first one first; then it is turned \
     away, an HTTP request with status 503. With the proxy one that closes without having said anything has left; \
     one that asked and says no more waits for its answer. Not of UDP.",
    )
}

pub(crate) const fn connect_timeout<N>(place: FieldAccess<N, Duration>) -> Setting<N, Duration> {
    Setting::new(
        "connect_timeout",
        TIMEOUT,
        place,
        Unset::Value(
            |_| ServiceLimits::default().connect,
            "one retransmitted SYN: after 1 s and 2 s",
        ),
        "A server that has not accepted a connection of the proxy or HAProxy after this is passed over; not of UDP.",
    )
}

pub(crate) const fn idle_timeout<N>(place: FieldAccess<N, Duration>) -> Setting<N, Duration> {
    Setting::new(
        "idle_timeout",
        TIMEOUT,
        place,
        Unset::Value(
            |_| ServiceLimits::default().idle,
            "as long as IPVS remembers a connection; of UDP, where it is 5 min",
        ),
        "The proxy or HAProxy ends a connection on which nothing moved in either direction for this long, and \
         forgets a client of UDP.",
    )
}

pub(crate) const fn half_closed_timeout<N>(
    place: FieldAccess<N, Duration>,
) -> Setting<N, Duration> {
    Setting::new(
        "half_closed_timeout",
        TIMEOUT,
        place,
        Unset::Value(
            |_| ServiceLimits::default().half_closed,
            "as long as IPVS remembers a connection that is closing",
        ),
        "The same once one side has sent all that it had to send; not of UDP.",
    )
}
