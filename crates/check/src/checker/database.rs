//! Handshakes with databases: MySQL, PostgreSQL and Redis, as far as each says that it serves.

use locum_plan::PostgresUser;

use super::conversation::{Conversation, excerpt};
use super::dial::FirstWord;
use super::{Answer, WaitingFor, Whom};

/// Of all answers together: a handshake has a few hundred octets.
const ANSWER_BYTES: usize = 64 * 1024;

/// A greeting and a login without a password: of this user, as HAProxy's mysql-check, or of nobody, whom
/// it may turn down. A server blocks hosts that leave after its greeting, by default for good at the
/// hundredth time in a row, and with this host the clients that come from it.
pub(crate) async fn mysql(
    whom: Whom<'_>,
    user: Option<&str>,
    stage: &mut WaitingFor,
) -> Result<Answer, Answer> {
    let mut server = Conversation::open(whom, FirstWord::Theirs, ANSWER_BYTES).await?;
    *stage = "no greeting";
    let greeting = mysql_packet(&mut server).await?;
    let version = match greeting.split_first() {
        Some((10, rest)) => {
            let version = rest.split(|octet| *octet == 0).next().unwrap_or_default();
            // MariaDB hides its own behind one that old replicas understand.
            excerpt(version.strip_prefix(b"5.5.5-").unwrap_or(version))
        }
        Some((0xff, error)) => return Err(mysql_error(error)),
        _ => return Err(Answer::fail("not a greeting of MySQL")),
    };
    let passed = || Answer::pass(format!("MySQL {version}"));
    *stage = "no answer to the login";
    server.say(&mysql_frame(1, &mysql_login(user.unwrap_or_default()))).await?;
    // At most: another method is asked for, and its first part is taken.
    for number in [3, 5, 7] {
        let answer = mysql_packet(&mut server).await?;
        match answer.split_first() {
            Some((0, _)) => {
                let _quit_matters_to_nobody = server.say(&mysql_frame(0, &[1])).await;
                return Ok(passed());
            }
            Some((0xff, error)) if user.is_none() && is_turned_down(error) => return Ok(passed()),
            Some((0xff, error)) => return Err(mysql_error(error)),
            // Another method, for which no password is an empty answer.
            Some((0xfe, _)) => server.say(&mysql_frame(number, &[])).await?,
            Some((1, [3, ..])) => {}
            _ => return Err(Answer::fail("not an answer of MySQL to a login")),
        }
    }
    Err(Answer::fail("MySQL asks for a password"))
}

async fn mysql_packet(server: &mut Conversation) -> Result<Vec<u8>, Answer> {
    let header = server.octets(4).await?;
    let length = u32::from_le_bytes([header[0], header[1], header[2], 0]);
    server.octets(length as usize).await
}

fn mysql_frame(number: u8, payload: &[u8]) -> Vec<u8> {
    let length = (payload.len() as u32).to_le_bytes();
    [&length[..3], &[number], payload].concat()
}

fn mysql_login(user: &str) -> Vec<u8> {
    // Protocol 4.1, authentication by a method that has a name.
    const CAPABILITIES: u32 = 0x0000_0200 | 0x0000_8000 | 0x0008_0000;
    const LARGEST_PACKET: u32 = 1 << 16;
    const UTF8: u8 = 33;
    let mut login = Vec::with_capacity(64 + user.len());
    login.extend_from_slice(&CAPABILITIES.to_le_bytes());
    login.extend_from_slice(&LARGEST_PACKET.to_le_bytes());
    login.push(UTF8);
    login.extend_from_slice(&[0; 23]);
    login.extend_from_slice(user.as_bytes());
    // The end of the user, and no password.
    login.extend_from_slice(&[0, 0]);
    login.extend_from_slice(b"mysql_native_password\0");
    login
}

/// The error is of the user, or of a login in the clear: others get in.
fn is_turned_down(error: &[u8]) -> bool {
    const ACCESS_DENIED: u16 = 1045;
    const NO_PASSWORD: u16 = 1698;
    const ONLY_BY_TLS: u16 = 3159;
    matches!(mysql_number(error), ACCESS_DENIED | NO_PASSWORD | ONLY_BY_TLS)
}

fn mysql_number(error: &[u8]) -> u16 {
    error.get(..2).map_or(0, |octets| u16::from_le_bytes([octets[0], octets[1]]))
}

/// Number, perhaps a state of SQL, and text.
fn mysql_error(error: &[u8]) -> Answer {
    let number = mysql_number(error);
    let text = error.get(2..).unwrap_or_default();
    let text = if text.first() == Some(&b'#') { text.get(6..).unwrap_or_default() } else { text };
    Answer::fail(format!("MySQL error {number}: {}", excerpt(text)))
}

/// Whether it takes connections; with a user, whether it would let this user log in, up to the
/// password.
pub(crate) async fn postgres(
    whom: Whom<'_>,
    user: Option<&PostgresUser>,
    stage: &mut WaitingFor,
) -> Result<Answer, Answer> {
    let mut server = Conversation::open(whom, FirstWord::Ours, ANSWER_BYTES).await?;
    *stage = "no answer";
    let Some(user) = user else {
        const ENCRYPTION: [u8; 8] = [0, 0, 0, 8, 0x04, 0xd2, 0x16, 0x2f];
        server.say(&ENCRYPTION).await?;
        return match server.octets(1).await?[..] {
            [b'S' | b'N'] => Ok(Answer::pass("PostgreSQL takes connections")),
            [b'E'] => Err(postgres_error(&mut server).await),
            _ => Err(Answer::fail("not an answer of PostgreSQL")),
        };
    };
    let mut startup = vec![0, 3, 0, 0];
    for word in ["user", &user.user, "database", &user.database, "application_name", "locum"] {
        startup.extend_from_slice(word.as_bytes());
        startup.push(0);
    }
    startup.push(0);
    let length = startup.len() as u32 + 4;
    server.say(&[&length.to_be_bytes()[..], &startup].concat()).await?;
    loop {
        match server.octets(1).await?[..] {
            [b'R'] => {
                let method = postgres_message(&mut server).await?;
                // Let in without a password: whether the user and the database exist is said next.
                if method.starts_with(&[0; 4]) {
                    *stage = "let in, and then nothing";
                    continue;
                }
            }
            [b'Z'] => {}
            // A notice, a setting, the key to cancel by.
            [b'N' | b'S' | b'K'] => {
                postgres_message(&mut server).await?;
                continue;
            }
            [b'E'] => return Err(postgres_error(&mut server).await),
            _ => return Err(Answer::fail("not an answer of PostgreSQL")),
        }
        let _farewell_matters_to_nobody = server.say(&[b'X', 0, 0, 0, 4]).await;
        return Ok(Answer::pass("PostgreSQL takes connections"));
    }
}

/// What follows the kind of a message.
async fn postgres_message(server: &mut Conversation) -> Result<Vec<u8>, Answer> {
    let length = server.octets(4).await?;
    let length = u32::from_be_bytes([length[0], length[1], length[2], length[3]]);
    server.octets(length.saturating_sub(4) as usize).await
}

/// The message of an error whose kind has been read.
async fn postgres_error(server: &mut Conversation) -> Answer {
    match postgres_message(server).await {
        Ok(fields) => {
            let mut fields = fields.split(|octet| *octet == 0);
            let message = fields.find_map(|field| field.strip_prefix(b"M"));
            Answer::fail(format!("PostgreSQL: {}", excerpt(message.unwrap_or_default())))
        }
        Err(answer) => answer,
    }
}

/// PING, after AUTH where there is a password.
pub(crate) async fn redis(
    whom: Whom<'_>,
    password: Option<&str>,
    stage: &mut WaitingFor,
) -> Result<Answer, Answer> {
    let mut server = Conversation::open(whom, FirstWord::Ours, ANSWER_BYTES).await?;
    if let Some(password) = password {
        *stage = "no answer to AUTH";
        let auth = format!("*2\r\n$4\r\nAUTH\r\n${}\r\n{password}\r\n", password.len());
        server.say(auth.as_bytes()).await?;
        let line = server.line().await?;
        if line != b"+OK" {
            return Err(redis_error(&line));
        }
    }
    *stage = "no answer to PING";
    server.say(b"*1\r\n$4\r\nPING\r\n").await?;
    let line = server.line().await?;
    match &line[..] {
        b"+PONG" => Ok(Answer::pass("PONG")),
        _ => Err(redis_error(&line)),
    }
}

fn redis_error(line: &[u8]) -> Answer {
    match line.strip_prefix(b"-") {
        Some(error) => Answer::fail(format!("Redis: {}", excerpt(error))),
        None => Answer::fail(format!("not an answer of Redis: {}", excerpt(line))),
    }
}
