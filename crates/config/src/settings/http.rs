//! `[service.http]`: what becomes of each request, and how a client is kept on its server.

use std::time::Duration;

use ::toml::de::DeValue;
use locum_plan::{CookieMode, PasswordHash};

use crate::field::Field;
use crate::settings::form::{Form, SWITCH, Schema, list, toml_only};
use crate::settings::limits::TIMEOUT;
use crate::settings::requests::{ParsedRule, REDIRECTS_FORM, ROUTES_FORM, missing, name, shown};
use crate::settings::row::{Noun, Row, Setting, Unset, field};
use crate::span::At;
use crate::toml::reader::{Key, Reader, Value};

#[derive(Clone, PartialEq, Debug, Default)]
pub(crate) struct ParsedHttp {
    pub routes: Field<Vec<At<ParsedRule>>>,
    pub redirects: Field<Vec<At<ParsedRule>>>,
    pub cookie: Field<ParsedCookie>,
    pub auth: Field<ParsedAccess>,
    pub stats: Field<ParsedAccess>,
    pub forwarded: Field<bool>,
    pub server_http2: Field<bool>,
    pub request_timeout: Field<Duration>,
    pub tunnel_timeout: Field<Duration>,
}

#[derive(Clone, PartialEq, Debug, Default)]
pub(crate) struct ParsedCookie {
    pub name: Field<String>,
    pub mode: Field<CookieMode>,
}

/// Of `auth` and of `stats`, which has a page besides.
#[derive(Clone, PartialEq, Debug, Default)]
pub(crate) struct ParsedAccess {
    pub realm: Field<String>,
    pub users: Field<Vec<At<ParsedUser>>>,
    pub path: Field<String>,
    pub refresh: Field<Duration>,
}

#[derive(Clone, PartialEq, Debug, Default)]
pub(crate) struct ParsedUser {
    pub name: Field<String>,
    pub password: Field<PasswordHash>,
}

pub(crate) const HTTP_FORM: Form<ParsedHttp> = toml_only(
    "a table, as in [service.http]",
    Schema::Table("http"),
    |reader, value, key| {
        let mut parsed = ParsedHttp::default();
        HTTP.open(reader, value, key, &mut parsed)?;
        Some(parsed)
    },
    |_| String::new(),
);

type OfHttp<T> = Setting<ParsedHttp, T>;

pub(crate) static HTTP: Noun<ParsedHttp> = Noun {
    name: "http",
    head: "[service.http]",
    what: "what a service does with HTTP",
    about: "With HAProxy: requests are looked at one by one, and not connections passed on. Whether a \
            server is up is for `health` to say. A connection becomes a WebSocket where client and \
            server agree on it, and clients that speak HTTP/2 are served as they are.",
    rows: &[
        &ROUTES,
        &REDIRECTS,
        &COOKIE,
        &AUTH,
        &STATS,
        &FORWARDED,
        &SERVER_HTTP2,
        &REQUEST_TIMEOUT,
        &TUNNEL_TIMEOUT,
    ],
};

static ROUTES: OfHttp<Vec<At<ParsedRule>>> = Setting::new(
    "routes",
    ROUTES_FORM,
    field!(ParsedHttp, Vec<At<ParsedRule>>, routes),
    Unset::Nothing("the servers of the service have all requests"),
    "Requests that another service of the instance has, by host, path or header: the first route that \
     fits. What none fits is for the service's own servers. A service that only routes lead to needs \
     no `listen`; what it says of `auth`, `cookie` and timeouts holds for what is sent there.",
);

static REDIRECTS: OfHttp<Vec<At<ParsedRule>>> = Setting::new(
    "redirects",
    REDIRECTS_FORM,
    field!(ParsedHttp, Vec<At<ParsedRule>>, redirects),
    Unset::Nothing("none"),
    "Requests that are answered with another place: the first one that fits, before any route.",
);

static COOKIE: OfHttp<ParsedCookie> = Setting::new(
    "cookie",
    toml_only(
        "the name of a cookie in quotes, or a table as in { name = \"SRV\", mode = \"prefix\" }",
        Schema::Any(&[Schema::Text, Schema::Table("cookie")]),
        cookie,
        |_| String::new(),
    ),
    field!(ParsedHttp, ParsedCookie, cookie),
    Unset::Nothing("each request may go to another server"),
    "Keep each client on its server by a cookie, as long as the server takes clients. Its value is \
     the same on all nodes.",
);

static AUTH: OfHttp<ParsedAccess> = Setting::new(
    "auth",
    toml_only(
        "a table, as in { realm = \"shop\", users = [{ name = \"ada\", password = \"$6$…\" }] }",
        Schema::Table("auth"),
        |reader, value, key| access(reader, value, key, &ACCESS),
        |_| String::new(),
    ),
    field!(ParsedHttp, ParsedAccess, auth),
    Unset::Nothing("everybody is served"),
    "Who may ask its servers (Basic authentication), whatever route led there. Requests that a route \
     sends to another service are for that one to guard. Passwords cross the network as they are \
     where `tls` does not hide them.",
);

static STATS: OfHttp<ParsedAccess> = Setting::new(
    "stats",
    toml_only(
        "a table, as in { path = \"/stats\", users = [{ name = \"ada\", password = \"$6$…\" }] }",
        Schema::Table("stats"),
        |reader, value, key| access(reader, value, key, &STATS_PAGE),
        |_| String::new(),
    ),
    field!(ParsedHttp, ParsedAccess, stats),
    Unset::Nothing("none"),
    "HAProxy's own page, with the numbers of all services of the instance.",
);

pub(crate) static FORWARDED: OfHttp<bool> = Setting::new(
    "forwarded",
    SWITCH,
    field!(ParsedHttp, bool, forwarded),
    Unset::Value(|_| true, "without it servers see this host alone"),
    "Tell servers the client's address in X-Forwarded-For, behind what a client has said there itself, \
     and protocol and port in X-Forwarded-Proto and X-Forwarded-Port; of what comes in at the \
     service's own addresses.",
);

pub(crate) static SERVER_HTTP2: OfHttp<bool> = Setting::new(
    "server_http2",
    SWITCH,
    field!(ParsedHttp, bool, server_http2),
    Unset::Value(|_| false, "every server speaks HTTP/1.1"),
    "Speak HTTP/2 to the servers; by TLS only with those that want to.",
);

pub(crate) static REQUEST_TIMEOUT: OfHttp<Duration> = Setting::new(
    "request_timeout",
    TIMEOUT,
    field!(ParsedHttp, Duration, request_timeout),
    Unset::Value(|_| Duration::from_secs(10), "the slowest network has sent a head by then"),
    "A client that has not said what it asks after this is turned away, and one that asks nothing more \
     for so long; what it uploads may take longer.",
);

pub(crate) static TUNNEL_TIMEOUT: OfHttp<Duration> = Setting::new(
    "tunnel_timeout",
    TIMEOUT,
    field!(ParsedHttp, Duration, tunnel_timeout),
    Unset::Value(|_| Duration::from_secs(3600), "a page that is left open says little"),
    "A WebSocket on which nothing moves for this long ends.",
);

pub(crate) static COOKIE_NOUN: Noun<ParsedCookie> = Noun {
    name: "cookie",
    head: "cookie = { … }",
    what: "a cookie",
    about: "The cookie that keeps a client on its server.",
    rows: &[&COOKIE_NAME, &COOKIE_MODE],
};

static COOKIE_NAME: Setting<ParsedCookie, String> = Setting::new(
    "name",
    toml_only("the name of a cookie", Schema::Text, cookie_name, String::clone),
    field!(ParsedCookie, String, name),
    Unset::Required,
    "Its name: letters, digits, and `-_.`.",
);

pub(crate) static COOKIE_MODE: Setting<ParsedCookie, CookieMode> = Setting::new(
    "mode",
    Form::Words(&[
        ("insert", CookieMode::Insert),
        ("rewrite", CookieMode::Rewrite),
        ("prefix", CookieMode::Prefix),
    ]),
    field!(ParsedCookie, CookieMode, mode),
    Unset::Value(|_| CookieMode::Insert, "the servers need not know of it"),
    "\"insert\" adds it to answers, hidden from servers and scripts; with \"rewrite\" the servers set \
     it, and its value is replaced; with \"prefix\" too, and their value stands behind ours.",
);

type OfAccess<T> = Setting<ParsedAccess, T>;

pub(crate) static ACCESS: Noun<ParsedAccess> = Noun {
    name: "auth",
    head: "auth = { … }",
    what: "who may ask",
    about: "Who is asked for a name and a password.",
    rows: &[&REALM, &USERS],
};

pub(crate) static STATS_PAGE: Noun<ParsedAccess> = Noun {
    name: "stats",
    head: "stats = { … }",
    what: "a page of statistics",
    about: "HAProxy's page of statistics, which nobody can change anything with.",
    rows: &[&STATS_PATH, &REFRESH, &REALM, &USERS],
};

pub(crate) static REALM: OfAccess<String> = Setting::new(
    "realm",
    toml_only("printable ASCII without quotes", Schema::Text, realm, |realm| {
        format!("\"{realm}\"")
    }),
    field!(ParsedAccess, String, realm),
    Unset::Value(|_| "Locum".to_owned(), "a browser has to show something"),
    "What a browser says that the password is for.",
);

static USERS: OfAccess<Vec<At<ParsedUser>>> = Setting::new(
    "users",
    list(
        "a list of tables, as in [{ name = \"ada\", password = \"$6$…\" }]",
        Schema::List(&Schema::Table("user")),
        |reader, value, key| {
            reader.each(value, key, |reader, item| {
                let mut user = ParsedUser::default();
                let span = USER.open(reader, item, key, &mut user)?;
                let both =
                    [("name", user.name.is_absent()), ("password", user.password.is_absent())];
                missing(reader, "a user", span, &both);
                user.name.given().zip(user.password.given()).is_some().then_some(user)
            })
        },
    ),
    field!(ParsedAccess, Vec<At<ParsedUser>>, users),
    Unset::Required,
    "Their names and passwords.",
);

static STATS_PATH: OfAccess<String> = Setting::new(
    "path",
    toml_only("the path of a page, as in \"/stats\"", Schema::Text, page, String::clone),
    field!(ParsedAccess, String, path),
    Unset::Required,
    "Its path, at the service's own addresses; no server gets what begins so.",
);

static REFRESH: OfAccess<Duration> = Setting::new(
    "refresh",
    toml_only(
        "a duration of whole seconds in quotes, as in \"5s\"",
        Schema::Duration,
        |reader, value, key| {
            let time = reader.duration(value, key)?;
            let is_whole = time.subsec_nanos() == 0 && (1..=86_400).contains(&time.as_secs());
            if !is_whole {
                reader.bad_value(value, key, "it is 1 s to a day, in whole seconds");
            }
            is_whole.then_some(time)
        },
        |_| String::new(),
    ),
    field!(ParsedAccess, Duration, refresh),
    Unset::Nothing("when its reader asks again"),
    "How often a browser asks for the page again.",
);

pub(crate) static USER: Noun<ParsedUser> = Noun {
    name: "user",
    head: "users = [{ … }]",
    what: "a user",
    about: "Who knows a password. `locum service show-haproxy` does not show it.",
    rows: &[&USER_NAME, &PASSWORD],
};

static USER_NAME: Setting<ParsedUser, String> = Setting::new(
    "name",
    toml_only("a name without blanks and colons", Schema::Text, user_name, String::clone),
    field!(ParsedUser, String, name),
    Unset::Required,
    "As it is typed: printable ASCII without blanks and colons.",
);

static PASSWORD: Setting<ParsedUser, PasswordHash> = Setting::new(
    "password",
    toml_only(
        "the hash of a password, as `openssl passwd -6` prints it",
        Schema::Text,
        |reader, value, key| reader.parsed(value, key, PasswordHash::new),
        |_| String::new(),
    ),
    field!(ParsedUser, PasswordHash, password),
    Unset::Required,
    "The hash of the password: what `openssl passwd -6` prints. It is computed anew for each request, \
     so that many rounds cost much.",
);

fn cookie(reader: &mut Reader<'_>, value: &Value<'_>, key: Key<'_>) -> Option<ParsedCookie> {
    let mut parsed = ParsedCookie::default();
    if let DeValue::String(_) = value.get_ref() {
        let span = reader.span(value.span());
        parsed.name = Field::Given(At::new(cookie_name(reader, value, key)?, span));
        return Some(parsed);
    }
    let span = COOKIE_NOUN.open(reader, value, key, &mut parsed)?;
    missing(reader, "a cookie", span, &[("name", parsed.name.is_absent())]);
    parsed.name.given()?;
    Some(parsed)
}

fn access(
    reader: &mut Reader<'_>,
    value: &Value<'_>,
    key: Key<'_>,
    noun: &Noun<ParsedAccess>,
) -> Option<ParsedAccess> {
    let mut parsed = ParsedAccess::default();
    let span = noun.open(reader, value, key, &mut parsed)?;
    let of_page = noun.rows.iter().any(|row: &&dyn Row<ParsedAccess>| row.key() == STATS_KEY);
    let is_empty = parsed.users.value().is_some_and(Vec::is_empty);
    let users = parsed.users.is_absent() || is_empty;
    let path = of_page && parsed.path.is_absent();
    missing(reader, noun.what, span, &[("users", users), (STATS_KEY, path)]);
    let is_usable = !users && parsed.users.given().is_some();
    (is_usable && (!of_page || parsed.path.given().is_some())).then_some(parsed)
}

const STATS_KEY: &str = "path";

fn cookie_name(reader: &mut Reader<'_>, value: &Value<'_>, key: Key<'_>) -> Option<String> {
    reader.parsed(value, key, |text| name(text, "-_.", "a cookie"))
}

fn realm(reader: &mut Reader<'_>, value: &Value<'_>, key: Key<'_>) -> Option<String> {
    reader.parsed(value, key, |text| {
        let fits = |c: char| (c.is_ascii_graphic() || c == ' ') && c != '"' && c != '\\';
        match (1..=128).contains(&text.len()) && text.chars().all(fits) {
            true => Ok(text.to_owned()),
            false => Err(format!("`{}` cannot be shown by every browser", shown(text))),
        }
    })
}

fn user_name(reader: &mut Reader<'_>, value: &Value<'_>, key: Key<'_>) -> Option<String> {
    reader.parsed(value, key, |text| {
        let fits = |c: char| c.is_ascii_graphic() && c != ':';
        match (1..=64).contains(&text.len()) && text.chars().all(fits) {
            true => Ok(text.to_owned()),
            false => Err(format!("`{}` is not the name of a user", shown(text))),
        }
    })
}

fn page(reader: &mut Reader<'_>, value: &Value<'_>, key: Key<'_>) -> Option<String> {
    reader.parsed(value, key, |text| {
        let fits = text.len() > 1 && text.len() <= 128;
        match fits && text.starts_with('/') && text.chars().all(|c| c.is_ascii_graphic()) {
            true => Ok(text.to_owned()),
            false => Err(format!("`{}` is not the path of a page", shown(text))),
        }
    })
}
