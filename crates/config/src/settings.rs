//! Settings: one row each says how it is spelled in both languages, what it may be, what it is when
//! nobody sets it and why, and where it goes in what was parsed.
//!
//! The readers, their lists of known keys, the suggestions, the JSON schema and the reference page
//! follow from the rows. A new setting is a row and the field
//! beside it here, and its use in `assemble`. Rules between settings are functions elsewhere: see `assemble` and `validate`.

pub(crate) mod address;
pub(crate) mod check;
pub(crate) mod command;
pub(crate) mod form;
pub(crate) mod health;
pub(crate) mod http;
pub(crate) mod instance;
pub(crate) mod introduction;
pub(crate) mod ipvs;
pub(crate) mod kinds;
pub(crate) mod limits;
pub(crate) mod listen;
pub(crate) mod node;
pub(crate) mod persistence;
pub(crate) mod question;
pub(crate) mod requests;
pub(crate) mod row;
pub(crate) mod server;
pub(crate) mod service;
pub(crate) mod tls;
pub(crate) mod track;
pub(crate) mod track_services;
pub(crate) mod transport;
pub(crate) mod tunnel;

use crate::settings::row::{Block, Described};

/// Every noun, in the order of the manual.
pub(crate) fn nouns() -> Vec<&'static dyn Described> {
    vec![
        &node::NODE,
        &instance::INSTANCE,
        &address::ADDRESS,
        &transport::UNICAST,
        &transport::PEER,
        &transport::AUTH,
        &instance::ANNOUNCE,
        &track::TRACK,
        &track::WEIGHT,
        &command::COMMAND,
        &check::CHECK,
        &service::SERVICE,
        &persistence::PERSISTENCE,
        &tunnel::TUNNEL,
        &health::HEALTH,
        &server::SERVER,
        &server::SORRY,
        &http::HTTP,
        &requests::ROUTE,
        &requests::REDIRECT,
        &requests::HEADER,
        &http::COOKIE_NOUN,
        &http::ACCESS,
        &http::STATS_PAGE,
        &http::USER,
        &tls::CLIENT_TLS,
        &tls::SERVER_TLS,
        &node::HAPROXY,
        &ipvs::IPVS,
        &ipvs::SYNC,
        &node::HOOKS,
    ]
}

/// Keywords of this block that are a setting's, whoever reads them.
pub(crate) fn keywords(block: Block) -> Vec<&'static str> {
    let all = nouns().into_iter().flat_map(|noun| noun.keywords());
    all.filter(|(home, ..)| *home == block).map(|(_, name, _)| name).collect()
}

/// Those of them that are read so.
#[cfg(test)]
pub(crate) fn keywords_read(block: Block, by: row::ReadBy) -> Vec<&'static str> {
    let all = nouns().into_iter().flat_map(|noun| noun.keywords());
    let of_block = all.filter(|(home, _, read_by)| *home == block && *read_by == by);
    of_block.map(|(_, name, _)| name).collect()
}
