//! Which requests a route or a redirect of `[service.http]` is for, and where they go.

use ::toml::de::DeValue;
use locum_plan::RequestMatch;

use crate::field::Field;
use crate::settings::form::{Form, SWITCH, Schema, list, toml_only};
use crate::settings::question;
use crate::settings::row::{Noun, Setting, Unset, field};
use crate::span::{At, Span};
use crate::toml::reader::{Key, Reader, Value};

/// A route or a redirect: each has the keys of its own table only.
#[derive(Clone, PartialEq, Debug, Default)]
pub(crate) struct ParsedRule {
    pub service: Field<String>,
    pub scheme: Field<RedirectScheme>,
    pub prefix: Field<String>,
    pub location: Field<String>,
    pub code: Field<u16>,
    pub host: Field<Vec<At<String>>>,
    pub host_domain: Field<Vec<At<String>>>,
    pub host_matches: Field<Vec<At<String>>>,
    pub path: Field<Vec<At<String>>>,
    pub path_begins: Field<Vec<At<String>>>,
    pub path_ends: Field<Vec<At<String>>>,
    pub path_matches: Field<Vec<At<String>>>,
    pub url_contains: Field<Vec<At<String>>>,
    pub headers: Field<Vec<At<ParsedHeader>>>,
    pub ignore_case: Field<bool>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum RedirectScheme {
    Https,
}

#[derive(Clone, PartialEq, Debug, Default)]
pub(crate) struct ParsedHeader {
    pub name: Field<String>,
    pub is: Field<Vec<At<String>>>,
    pub begins: Field<Vec<At<String>>>,
    pub ends: Field<Vec<At<String>>>,
    pub contains: Field<Vec<At<String>>>,
    pub matches: Field<Vec<At<String>>>,
}

/// Octets of one value: a line of HAProxy holds it.
const LONGEST: usize = 1024;

/// Of one rule: each of them is a word in a line of HAProxy, which has 64.
const MOST_HEADERS: usize = 16;

pub(super) const ROUTES_FORM: Form<Vec<At<ParsedRule>>> = list(
    "a list of tables, as in [{ path_begins = \"/api\", service = \"api\" }]",
    Schema::List(&Schema::Table("route")),
    |reader, value, key| {
        reader.each(value, key, |reader, item| {
            let mut rule = ParsedRule::default();
            let span = ROUTE.open(reader, item, key, &mut rule)?;
            missing(reader, "a route", span, &[("service", rule.service.is_absent())]);
            rule.service.given()?;
            rule.has_conditions_or_none().then_some(rule)
        })
    },
);

pub(super) const REDIRECTS_FORM: Form<Vec<At<ParsedRule>>> = list(
    "a list of tables, as in [{ scheme = \"https\", code = 301 }]",
    Schema::List(&Schema::Table("redirect")),
    |reader, value, key| {
        reader.each(value, key, |reader, item| {
            let mut rule = ParsedRule::default();
            REDIRECT.open(reader, item, key, &mut rule)?;
            let is_bad = rule.scheme.is_bad() || rule.prefix.is_bad() || rule.location.is_bad();
            (!is_bad && !rule.code.is_bad() && rule.has_conditions_or_none()).then_some(rule)
        })
    },
);

impl ParsedRule {
    /// None of its conditions was refused.
    fn has_conditions_or_none(&self) -> bool {
        let texts = [
            &self.host,
            &self.host_domain,
            &self.host_matches,
            &self.path,
            &self.path_begins,
            &self.path_ends,
            &self.path_matches,
            &self.url_contains,
        ];
        texts.iter().all(|field| !field.is_bad()) && !self.headers.is_bad()
    }
}

impl ParsedHeader {
    /// How its value may be compared.
    pub fn ways(&self) -> [(&Field<Vec<At<String>>>, RequestMatch); 5] {
        [
            (&self.is, RequestMatch::Is),
            (&self.begins, RequestMatch::Begins),
            (&self.ends, RequestMatch::Ends),
            (&self.contains, RequestMatch::Contains),
            (&self.matches, RequestMatch::Matches),
        ]
    }
}

type OfRule<T> = Setting<ParsedRule, T>;

pub(crate) static ROUTE: Noun<ParsedRule> = Noun {
    name: "route",
    head: "routes = [{ … }]",
    what: "a route",
    about: "Requests that another service has. All that is said of them must hold; of a list one \
            entry is enough.",
    rows: &[
        &SERVICE,
        &HOST,
        &HOST_DOMAIN,
        &HOST_MATCHES,
        &PATH,
        &PATH_BEGINS,
        &PATH_ENDS,
        &PATH_MATCHES,
        &URL_CONTAINS,
        &HEADERS,
        &IGNORE_CASE,
    ],
};

pub(crate) static REDIRECT: Noun<ParsedRule> = Noun {
    name: "redirect",
    head: "redirects = [{ … }]",
    what: "a redirect",
    about: "Requests that are answered with another place. All that is said of them must hold; of a \
            list one entry is enough. Of which nothing is said, all.",
    rows: &[
        &SCHEME,
        &PREFIX,
        &LOCATION,
        &CODE,
        &HOST,
        &HOST_DOMAIN,
        &HOST_MATCHES,
        &PATH,
        &PATH_BEGINS,
        &PATH_ENDS,
        &PATH_MATCHES,
        &URL_CONTAINS,
        &HEADERS,
        &IGNORE_CASE,
    ],
};

static SERVICE: OfRule<String> = Setting::new(
    "service",
    crate::settings::form::text("the name of a service in quotes"),
    field!(ParsedRule, String, service),
    Unset::Required,
    "The service whose servers have them: by HAProxy, with `http`, of the same instance and the same \
     `standby`.",
);

static SCHEME: OfRule<RedirectScheme> = Setting::new(
    "scheme",
    Form::Words(&[("https", RedirectScheme::Https)]),
    field!(ParsedRule, RedirectScheme, scheme),
    Unset::Nothing("`prefix` or `location` says where"),
    "To the same by https, for who did not ask so. A port in what was asked stays there.",
);

static PREFIX: OfRule<String> = Setting::new(
    "prefix",
    place("the beginning of a URL, as in \"https://www.example.com\""),
    field!(ParsedRule, String, prefix),
    Unset::Nothing("`scheme` or `location` says where"),
    "To what was asked, path and all, behind this.",
);

static LOCATION: OfRule<String> = Setting::new(
    "location",
    place("a URL or a path, as in \"/new\""),
    field!(ParsedRule, String, location),
    Unset::Nothing("`scheme` or `prefix` says where"),
    "To this place, whatever was asked.",
);

pub(crate) static CODE: OfRule<u16> = Setting::new(
    "code",
    toml_only(
        "301, 302, 303, 307 or 308",
        Schema::Any(&[Schema::Whole(301, 303), Schema::Whole(307, 308)]),
        |reader, value, key| {
            let code = reader.integer(value, key, 301..=308)?;
            if (304..=306).contains(&code) {
                reader.bad_value(
                    value,
                    key,
                    &format!("{code} is no redirect that a browser follows"),
                );
                return None;
            }
            u16::try_from(code).ok()
        },
        u16::to_string,
    ),
    field!(ParsedRule, u16, code),
    Unset::Value(|_| 302, "browsers keep the others for long"),
    "Status of the answer; 301 and 308 are for good, 307 and 308 keep the method.",
);

static HOST: OfRule<Vec<At<String>>> = Setting::new(
    "host",
    texts("a host name in quotes, or a list of them", host),
    field!(ParsedRule, Vec<At<String>>, host),
    Unset::Nothing("any"),
    "The host that was asked, without its port; in any case of letters, as the two below.",
);

static HOST_DOMAIN: OfRule<Vec<At<String>>> = Setting::new(
    "host_domain",
    texts("a domain in quotes, or a list of them", host),
    field!(ParsedRule, Vec<At<String>>, host_domain),
    Unset::Nothing("any"),
    "A part of the host between dots: `example.com` fits itself and `www.example.com`; HAProxy's \
     `hdr_dom(host)`.",
);

static HOST_MATCHES: OfRule<Vec<At<String>>> = Setting::new(
    "host_matches",
    texts("a regular expression in quotes, or a list of them", regex),
    field!(ParsedRule, Vec<At<String>>, host_matches),
    Unset::Nothing("any"),
    "What the host matches, in a syntax that Rust's regex and PCRE have in common; HAProxy's \
     `hdr_reg(host)`.",
);

static PATH: OfRule<Vec<At<String>>> = Setting::new(
    "path",
    texts("a path in quotes, or a list of them", path),
    field!(ParsedRule, Vec<At<String>>, path),
    Unset::Nothing("any"),
    "The whole path, without what follows a `?`.",
);

static PATH_BEGINS: OfRule<Vec<At<String>>> = Setting::new(
    "path_begins",
    texts("the beginning of a path in quotes, or a list of them", path),
    field!(ParsedRule, Vec<At<String>>, path_begins),
    Unset::Nothing("any"),
    "How the path begins, as it was sent: it is not made plain before. HAProxy's `path_beg`.",
);

static PATH_ENDS: OfRule<Vec<At<String>>> = Setting::new(
    "path_ends",
    texts("the end of a path in quotes, or a list of them", value),
    field!(ParsedRule, Vec<At<String>>, path_ends),
    Unset::Nothing("any"),
    "How the path ends, as in \".php\"; HAProxy's `path_end`.",
);

static PATH_MATCHES: OfRule<Vec<At<String>>> = Setting::new(
    "path_matches",
    texts("a regular expression in quotes, or a list of them", regex),
    field!(ParsedRule, Vec<At<String>>, path_matches),
    Unset::Nothing("any"),
    "What the path matches; HAProxy's `path_reg`.",
);

static URL_CONTAINS: OfRule<Vec<At<String>>> = Setting::new(
    "url_contains",
    texts("text in quotes, or a list of them", value),
    field!(ParsedRule, Vec<At<String>>, url_contains),
    Unset::Nothing("any"),
    "What stands in the path or behind its `?`; HAProxy's `url_sub`.",
);

static HEADERS: OfRule<Vec<At<ParsedHeader>>> = Setting::new(
    "headers",
    list(
        "a list of tables, as in [{ name = \"X-Canary\", is = \"1\" }]",
        Schema::List(&Schema::Table("header")),
        headers,
    ),
    field!(ParsedRule, Vec<At<ParsedHeader>>, headers),
    Unset::Nothing("any"),
    "Fields of the request's head; each entry must hold.",
);

pub(crate) static IGNORE_CASE: OfRule<bool> = Setting::new(
    "ignore_case",
    SWITCH,
    field!(ParsedRule, bool, ignore_case),
    Unset::Value(|_| false, "to most servers `/A` is another page than `/a`"),
    "Whether the case of letters in paths and header values means nothing.",
);

type OfHeader<T> = Setting<ParsedHeader, T>;

pub(crate) static HEADER: Noun<ParsedHeader> = Noun {
    name: "header",
    head: "headers = [{ … }]",
    what: "a header",
    about: "A field of a request's head. With nothing but its name, it must be there.",
    rows: &[&HEADER_NAME, &IS, &BEGINS, &ENDS, &CONTAINS, &MATCHES],
};

static HEADER_NAME: OfHeader<String> = Setting::new(
    "name",
    toml_only(
        "the name of a header, as in \"User-Agent\"",
        Schema::Text,
        |reader, value, key| reader.parsed(value, key, |text| name(text, "-_", "a header")),
        String::clone,
    ),
    field!(ParsedHeader, String, name),
    Unset::Required,
    "Its name.",
);

static IS: OfHeader<Vec<At<String>>> = Setting::new(
    "is",
    texts("text in quotes, or a list of them", value),
    field!(ParsedHeader, Vec<At<String>>, is),
    Unset::Nothing("any"),
    "A whole value of it.",
);

static BEGINS: OfHeader<Vec<At<String>>> = Setting::new(
    "begins",
    texts("text in quotes, or a list of them", value),
    field!(ParsedHeader, Vec<At<String>>, begins),
    Unset::Nothing("any"),
    "How a value of it begins.",
);

static ENDS: OfHeader<Vec<At<String>>> = Setting::new(
    "ends",
    texts("text in quotes, or a list of them", value),
    field!(ParsedHeader, Vec<At<String>>, ends),
    Unset::Nothing("any"),
    "How a value of it ends.",
);

static CONTAINS: OfHeader<Vec<At<String>>> = Setting::new(
    "contains",
    texts("text in quotes, or a list of them", value),
    field!(ParsedHeader, Vec<At<String>>, contains),
    Unset::Nothing("any"),
    "What stands in a value of it.",
);

static MATCHES: OfHeader<Vec<At<String>>> = Setting::new(
    "matches",
    texts("a regular expression in quotes, or a list of them", regex),
    field!(ParsedHeader, Vec<At<String>>, matches),
    Unset::Nothing("any"),
    "What a value of it matches.",
);

type ReadTexts = fn(&mut Reader<'_>, &Value<'_>, Key<'_>) -> Option<Vec<At<String>>>;

/// One text or several, each of them as `read` takes it.
const fn texts(shape: &'static str, read: ReadTexts) -> Form<Vec<At<String>>> {
    toml_only(shape, Schema::Any(&[Schema::Text, Schema::List(&Schema::Text)]), read, |_| {
        String::new()
    })
}

fn each(
    reader: &mut Reader<'_>,
    value: &Value<'_>,
    key: Key<'_>,
    parse: fn(&str) -> Result<String, String>,
) -> Option<Vec<At<String>>> {
    if let DeValue::String(_) = value.get_ref() {
        let span = reader.span(value.span());
        return Some(vec![At::new(reader.parsed(value, key, parse)?, span)]);
    }
    let all = reader.each(value, key, |reader, item| reader.parsed(item, key, parse))?;
    if all.is_empty() {
        reader.bad_value(value, key, "an empty list fits no request");
        return None;
    }
    Some(all)
}

fn value(reader: &mut Reader<'_>, value: &Value<'_>, key: Key<'_>) -> Option<Vec<At<String>>> {
    each(reader, value, key, printable)
}

fn host(reader: &mut Reader<'_>, value: &Value<'_>, key: Key<'_>) -> Option<Vec<At<String>>> {
    each(reader, value, key, |text| {
        let fits = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
        match printable(text)?.chars().all(fits) {
            true => Ok(text.to_owned()),
            false => Err(format!("`{text}` is not a host name without a port")),
        }
    })
}

fn path(reader: &mut Reader<'_>, value: &Value<'_>, key: Key<'_>) -> Option<Vec<At<String>>> {
    each(reader, value, key, |text| match printable(text)?.starts_with('/') {
        true => Ok(text.to_owned()),
        false => Err(format!("`{text}` is not a path: it begins with `/`")),
    })
}

fn regex(reader: &mut Reader<'_>, value: &Value<'_>, key: Key<'_>) -> Option<Vec<At<String>>> {
    each(reader, value, key, |text| {
        let text = printable(text)?;
        question::regex(&text).map(|()| text)
    })
}

/// A place of a redirect is sent to clients in a header.
const fn place(shape: &'static str) -> Form<String> {
    toml_only(
        shape,
        Schema::Text,
        |reader, value, key| {
            reader.parsed(value, key, |text| {
                let is_url = ["/", "http://", "https://"].iter().any(|head| text.starts_with(head));
                let text = printable(text)?;
                match is_url && text.chars().all(|c| c.is_ascii_graphic()) {
                    true => Ok(text),
                    false => Err(format!("`{text}` is neither a URL nor a path")),
                }
            })
        },
        String::clone,
    )
}

fn printable(text: &str) -> Result<String, String> {
    if text.is_empty() || text.chars().any(char::is_control) {
        Err("it is empty or holds what cannot be printed".to_owned())
    } else if text.len() > LONGEST {
        Err(format!("it is longer than {LONGEST} octets"))
    } else {
        Ok(text.to_owned())
    }
}

fn headers(
    reader: &mut Reader<'_>,
    value: &Value<'_>,
    key: Key<'_>,
) -> Option<Vec<At<ParsedHeader>>> {
    let all = reader.each(value, key, |reader, item| {
        let mut header = ParsedHeader::default();
        let span = HEADER.open(reader, item, key, &mut header)?;
        missing(reader, "a header", span, &[("name", header.name.is_absent())]);
        header.name.given()?;
        let ways = header.ways();
        if ways.iter().filter(|(way, _)| way.given().is_some()).count() > 1 {
            let text = "a header is compared in one way: write an entry for each";
            reader.report.error(span, "misplaced-key", text);
            return None;
        }
        ways.iter().all(|(way, _)| !way.is_bad()).then_some(header)
    })?;
    if all.len() > MOST_HEADERS {
        reader.bad_value(value, key, &format!("there are more than {MOST_HEADERS}"));
        return None;
    }
    Some(all)
}

/// Reports the keys that a table needs and has not, each with whether it is missing.
pub(super) fn missing(reader: &mut Reader<'_>, what: &str, span: Span, keys: &[(&str, bool)]) {
    for (key, _) in keys.iter().filter(|(_, is_missing)| *is_missing) {
        reader.report.error(span, "missing-key", format!("{what} has no `{key}`"));
    }
}

/// A name of letters, digits and these.
pub(super) fn name(text: &str, more: &str, of: &str) -> Result<String, String> {
    let fits = |c: char| c.is_ascii_alphanumeric() || more.contains(c);
    match (1..=64).contains(&text.len()) && text.chars().all(fits) {
        true => Ok(text.to_owned()),
        false => Err(format!("`{}` is not the name of {of}", shown(text))),
    }
}

/// What is not printable is not printed.
pub(super) fn shown(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { char::REPLACEMENT_CHARACTER } else { c }).collect()
}
