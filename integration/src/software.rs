//! The servers that Debian has, on a machine of the lab: their data made fresh in the machine's own
//! files, nothing of the host's configuration read.

use std::path::Path;

use crate::node::Node;
use crate::process::Process;
use crate::process::Whom;
use crate::wait;
use crate::wait::seconds;

/// On a busy machine; none takes a second on an idle one.
const START: std::time::Duration = seconds(60);

/// Who is no administrator: PostgreSQL runs as nobody else.
const UNPRIVILEGED: [&str; 4] = ["setpriv", "--reuid=nobody", "--regid=nogroup", "--clear-groups"];
const POSTGRES: &str = "/usr/lib/postgresql/15/bin";

/// A server that is prepared on a machine and can be started there again and again.
pub struct Software {
    argv: Vec<String>,
    /// What it writes when it answers.
    ready: &'static str,
}

impl Software {
    /// The programs that [`crate::require::lab`] has to find for all of them.
    pub const PROGRAMS: [&'static str; 8] = [
        "mariadbd",
        "/usr/lib/postgresql/15/bin/postgres",
        "redis-server",
        "unbound",
        "smtpd",
        "kamailio",
        "etcd",
        "nginx",
    ];

    /// MariaDB at port 3306, after these statements, each of them in a line.
    pub fn mariadb(node: &Node, statements: &str) -> Self {
        const OPTIONS: [&str; 6] = [
            "--no-defaults",
            "--user=root",
            "--datadir=/run/mariadb/data",
            // Names there are made of process numbers, which other machines have too.
            "--tmpdir=/run/mariadb",
            "--skip-innodb",
            "--default-storage-engine=Aria",
        ];
        node.write("/run/mariadb/users.sql", statements);
        // What its installer does, without what only clients read.
        node.shell(&format!(
            "mkdir -p /run/mariadb/data/mysql\ncd /usr/share/mysql\n\
             (echo 'use mysql;'; cat mysql_system_tables.sql mysql_system_tables_data.sql) |
             mariadbd {} --bootstrap 2> /run/mariadb/log ||
             {{ cat /run/mariadb/log; exit 1; }}",
            OPTIONS.join(" ")
        ));
        let more = [
            "--socket=/run/mariadb/socket",
            "--pid-file=/run/mariadb/pid",
            "--init-file=/run/mariadb/users.sql",
        ];
        Self::new(&[&["mariadbd"], &OPTIONS[..], &more].concat(), "ready for connections")
    }

    /// PostgreSQL at port 5432 with the superuser `root` and these lines of `pg_hba.conf`.
    pub fn postgres(node: &Node, rules: &str) -> Self {
        let unprivileged = UNPRIVILEGED.join(" ");
        // What was run as an administrator may have made the device theirs alone.
        node.shell(&format!(
            "mkdir -p /run/postgres && chown nobody /run/postgres && cd /run/postgres
             mknod -m 666 null c 1 3 && mount --bind null /dev/null
             {unprivileged} {POSTGRES}/initdb -D data -U root -A trust -E UTF8 --locale=C --no-sync"
        ));
        node.write("/run/postgres/data/pg_hba.conf", rules);
        let server = format!("{POSTGRES}/postgres");
        let options = [
            &*server,
            "-D",
            "/run/postgres/data",
            "-h",
            "0.0.0.0",
            "-k",
            "/run/postgres",
            "-c",
            "fsync=off",
            "-c",
            "shared_buffers=1MB",
        ];
        Self::new(&[&UNPRIVILEGED, &options[..]].concat(), "ready to accept connections")
    }

    /// Redis at port 6379, which keeps nothing.
    pub fn redis() -> Self {
        let argv = ["redis-server", "--protected-mode", "no", "--save", "", "--dir", "/run"];
        Self::new(&argv, "Ready to accept connections")
    }

    /// Unbound at port 53, which asks nobody else, with these lines about zones.
    pub fn unbound(node: &Node, zones: &str) -> Self {
        const FILE: &str = "/run/unbound/unbound.conf";
        let common = "server:\n\
            interface: 0.0.0.0\n\
            access-control: 0.0.0.0/0 allow\n\
            chroot: \"\"\n\
            username: \"\"\n\
            directory: \"/run/unbound\"\n\
            pidfile: \"/run/unbound/pid\"\n\
            use-syslog: no\n\
            do-ip6: no\n\
            module-config: \"iterator\"\n\
            do-not-query-address: 0.0.0.0/0\n";
        node.write(FILE, &format!("{common}{zones}"));
        Self::new(&["unbound", "-d", "-c", FILE], "start of service")
    }

    /// OpenSMTPD at port 25, by the name `mx.example.com`.
    pub fn smtpd(node: &Node) -> Self {
        const FILE: &str = "/run/smtpd/smtpd.conf";
        node.write(
            FILE,
            "listen on 0.0.0.0 hostname mx.example.com\n\
             action \"keep\" maildir\n\
             match from any for any action \"keep\"\n",
        );
        node.shell("mount -t tmpfs -o mode=755 tmpfs /var/spool");
        Self::new(&["smtpd", "-d", "-f", FILE], "starting")
    }

    /// nginx at port 80, which answers `/health` and every page with the name of its machine.
    pub fn nginx(node: &Node) -> Self {
        const FILE: &str = "/run/nginx/nginx.conf";
        let name = node.name();
        node.write(
            FILE,
            &format!(
                "daemon off;\nuser root;\npid /run/nginx/pid;\nerror_log stderr notice;\n\
                 events {{}}\n\
                 http {{\naccess_log off;\nserver {{\nlisten 80;\n\
                 location / {{ return 200 \"{name}\"; }}\n}}\n}}\n"
            ),
        );
        Self::new(&["nginx", "-c", FILE, "-e", "stderr"], "start worker process")
    }

    /// Kamailio at port 5060 over UDP, which answers every request with the name of its machine.
    pub fn kamailio(node: &Node) -> Self {
        const FILE: &str = "/run/kamailio/kamailio.cfg";
        let name = node.name();
        node.write(
            FILE,
            &format!(
                "children=1\nlog_stderror=yes\nlisten=udp:0.0.0.0:5060\n\
                 loadmodule \"sl.so\"\nloadmodule \"pv.so\"\n\
                 request_route {{ sl_send_reply(\"200\", \"{name}\"); }}\n"
            ),
        );
        // In the foreground, its log with ours, and little memory.
        let argv =
            ["kamailio", "-DD", "-E", "-f", FILE, "-m", "16", "-M", "4", "-Y", "/run/kamailio"];
        Self::new(&argv, "Listening on")
    }

    /// etcd at port 2379, which speaks gRPC and its health protocol.
    pub fn etcd() -> Self {
        let argv = [
            "etcd",
            "--data-dir=/run/etcd",
            "--listen-client-urls=http://0.0.0.0:2379",
            "--advertise-client-urls=http://10.0.0.1:2379",
            "--listen-peer-urls=http://127.0.0.1:2380",
        ];
        Self::new(&argv, "ready to serve client requests")
    }

    fn new(argv: &[&str], ready: &'static str) -> Self {
        Self { argv: argv.iter().map(|word| (*word).to_owned()).collect(), ready }
    }

    /// The same with more options.
    #[must_use]
    pub fn with(mut self, options: &[&str]) -> Self {
        self.argv.extend(options.iter().map(|word| (*word).to_owned()));
        self
    }

    /// Starts it and waits until it says that it answers.
    pub fn start(&self, node: &Node) -> Process {
        let argv: Vec<&str> = self.argv.iter().map(String::as_str).collect();
        let mut process = node.spawn(&argv);
        let name = Path::new(argv[0]).display();
        wait::eventually(&format!("{name} is ready"), START, || {
            let log = process.log();
            match log.contains(self.ready) && process.exited().is_none() {
                true => Ok(()),
                false => Err(log),
            }
        });
        process
    }
}

/// Ends it and all that it has started.
pub fn kill(mut process: Process) {
    process.signal(Whom::Family, nix::sys::signal::Signal::SIGKILL);
    process.wait(START);
}
