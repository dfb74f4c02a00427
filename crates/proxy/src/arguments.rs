//! What the proxy's process is started with. The balancer writes it, no operator does.

use std::path::PathBuf;
use std::time::Duration;

use crate::sandbox::Account;

#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Settings {
    /// Where to listen for the balancer.
    pub socket: PathBuf,
    /// How long to go on without a balancer connected; for ever when `None`.
    pub orphan_timeout: Option<Duration>,
    /// As whom to serve; as whoever started it when `None`.
    pub account: Option<Account>,
    /// Where the proxy answers whose place it takes; `None`: nobody's.
    pub predecessor: Option<PathBuf>,
}

#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum UsageError {
    #[error(
        "unknown argument {0}, expected --socket PATH and optionally --orphan-timeout MILLISECONDS, \
         --user USER:GROUP and --predecessor PATH"
    )]
    Unknown(String),
    #[error("{0} needs a value")]
    NoValue(&'static str),
    #[error("--orphan-timeout takes milliseconds, not {0}")]
    NotMilliseconds(String),
    #[error("--user takes two numbers, USER:GROUP, not {0}")]
    NoAccount(String),
    #[error("--socket PATH is missing")]
    NoSocket,
}

impl Settings {
    /// `--socket PATH [--orphan-timeout MILLISECONDS] [--user USER:GROUP] [--predecessor PATH]`.
    pub fn from_arguments(arguments: impl IntoIterator<Item = String>) -> Result<Self, UsageError> {
        let mut arguments = arguments.into_iter();
        let (mut socket, mut orphan_timeout, mut account) = (None, None, None);
        let mut predecessor = None;
        while let Some(argument) = arguments.next() {
            match argument.as_str() {
                "--socket" => {
                    let path = arguments.next().ok_or(UsageError::NoValue("--socket"))?;
                    socket = Some(PathBuf::from(path));
                }
                "--orphan-timeout" => {
                    let value = arguments.next().ok_or(UsageError::NoValue("--orphan-timeout"))?;
                    let milliseconds =
                        value.parse().map_err(|_| UsageError::NotMilliseconds(value))?;
                    orphan_timeout = Some(Duration::from_millis(milliseconds));
                }
                "--user" => {
                    let value = arguments.next().ok_or(UsageError::NoValue("--user"))?;
                    let read = Account::from_text(&value);
                    account = Some(read.ok_or(UsageError::NoAccount(value))?);
                }
                "--predecessor" => {
                    let path = arguments.next().ok_or(UsageError::NoValue("--predecessor"))?;
                    predecessor = Some(PathBuf::from(path));
                }
                _ => return Err(UsageError::Unknown(argument)),
            }
        }
        let socket = socket.ok_or(UsageError::NoSocket)?;
        Ok(Self { socket, orphan_timeout, account, predecessor })
    }

    /// What of the arguments does not change while the process runs: who wants other options takes
    /// another process.
    pub fn options(account: Option<Account>) -> Vec<String> {
        let user = account.map(|Account { user, group }| format!("{user}:{group}"));
        user.into_iter().flat_map(|user| ["--user".to_owned(), user]).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(words: &[&str]) -> Result<Settings, UsageError> {
        Settings::from_arguments(words.iter().map(|word| (*word).to_owned()))
    }

    #[test]
    fn arguments_are_read_or_refused_with_the_expected_form() {
        let settings =
            read(&["--orphan-timeout", "1500", "--socket", "/run/x/proxy.sock"]).unwrap();
        assert_eq!(settings.socket, PathBuf::from("/run/x/proxy.sock"));
        assert_eq!(settings.orphan_timeout, Some(Duration::from_millis(1500)));
        assert_eq!(read(&["--socket", "/s"]).unwrap().orphan_timeout, None);
        assert_eq!(read(&[]), Err(UsageError::NoSocket));
        assert_eq!(read(&["--socket"]), Err(UsageError::NoValue("--socket")));
        assert_eq!(
            read(&["--orphan-timeout", "3s"]),
            Err(UsageError::NotMilliseconds("3s".to_owned()))
        );
        assert!(matches!(read(&["--port"]), Err(UsageError::Unknown(_))));
        let account = read(&["--socket", "/s", "--user", "65534:7"]).unwrap().account;
        assert_eq!(account, Some(Account { user: 65_534, group: 7 }));
        assert_eq!(Settings::options(account), ["--user", "65534:7"]);
        let words = ["--socket", "/s", "--predecessor", "/before"];
        assert_eq!(read(&words).unwrap().predecessor, Some(PathBuf::from("/before")));
        assert_eq!(read(&["--user", "x"]), Err(UsageError::NoAccount("x".to_owned())));
    }
}
