//! Arguments of `swarm` and what they turn into.
//!
//! Options shared by all subcommands live in [`ConnectArgs`] and [`LoadArgs`]; each scenario brings its own.
//! Everything is checked before the first connection is opened, and errors say which option to change.

use crate::client::{Credentials, Endpoint, LoadError};
use crate::machine;
use crate::measure::{Outcome, ServerProbe};
use crate::report::{Progress, outcome_table};
use crate::scenario::{
    Context, DatabaseEvents, Echo, Fanout, Idle, JoinStorm, Mix, PostgresChanges, Presence, PrivateJoins, Scenario, Slow, TcpEcho,
};
use crate::suite::SuiteArgs;
use crate::wire::push::Dialect;
use crate::wire::token::Mint;
use clap::{Args, Parser, Subcommand, ValueEnum};
use std::fs;
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::{SystemTime, UNIX_EPOCH};

/// Load generator for ringcast and other servers of the Realtime protocol.
///
/// One thread opens and drives all connections. Pin the server to one core and swarm to another (--core), and give
/// the server's process id (--pid) to see its CPU time per delivery, which survives a noisy machine better than
/// messages per second do.
#[derive(Debug, Parser)]
#[command(version, after_help = EXAMPLES)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

const EXAMPLES: &str = "Examples:
  Flood one topic with 1000 subscribers, 32 messages outstanding:
    swarm fanout --subscribers 1000 --window 32 --pid $(pidof ringcast) --core 1 --secret SECRET
  The same paced at 50 messages a second, with honest latencies:
    swarm fanout --subscribers 1000 --rate 50 --secret SECRET
  The bare io_uring floor instead of a gateway (no credentials needed):
    floor --port 4001 --core 0 &
    swarm mix --users 2000 --url ws://127.0.0.1:4001/ --pid $! --core 1
  A tenant with a database: rows inserted by SQL to 100 subscribers, ten a second, then as fast as it goes:
    swarm database-events --subscribers 100 --rate 10 --secret SECRET --pid $(pidof ringcast) \\
          --database postgres://postgres@127.0.0.1:5432/postgres --postgres-pid $(head -1 $PGDATA/postmaster.pid)
    swarm database-events --subscribers 100 --rate max --private …
  Postgres Changes to 100 users under row-level security:
    swarm postgres-changes --subscribers 100 --mode rls --rate max --database … --postgres-pid … --secret SECRET
  Compare two servers, five interleaved rounds, and write a report:
    swarm all --target floor=ws://127.0.0.1:4001/,pid=11 \\
              --target ringcast=ws://127.0.0.1:4000/socket/websocket,pid=12 \\
              --target tcp=tcp://127.0.0.1:4002,pid=13 \\
              --secret SECRET --core 1 --html report.html --json report.json";

#[derive(Debug, Subcommand)]
enum Command {
    /// One topic × N subscribers: flood (--window) or paced stream (--rate).
    Fanout(Single<Fanout>),
    /// Round trips of N connections that send to themselves.
    Echo(Single<Echo>),
    /// N users, each in an echo channel and in a room of six, sending at a fixed rate.
    Mix(Single<Mix>),
    /// Memory of the server per idle joined connection (needs --pid and a freshly started server).
    Idle(Single<Idle>),
    /// Connect and join as fast as possible: rate and CPU per join.
    Joinstorm(Single<JoinStorm>),
    /// Fan-out beside readers that have stopped or crawl, compared with the same run without them.
    Slow(Single<Slow>),
    /// N members join and track one room: presence diffs per member.
    Presence(Single<Presence>),
    /// Join and leave private channels of a tenant with a database (--database).
    ///
    /// Every connection keeps --window joins outstanding, each on a topic of its own, so that no two of them share an
    /// answer, and leaves a channel as soon as it is in. Join time counts from sending phx_join to the ok; CPU per join
    /// includes the leave.
    ///
    /// The database must be that of the tenant, known to the server already: the server makes the schema realtime in it.
    /// swarm then gives role authenticated the right to read and write topics load:… (policies swarm_select and
    /// swarm_insert on realtime.messages, replaced by every run and left there) and waits for the replication stream.
    /// Raise the tenant's limits: max_joins_per_second, and db_pool for more than one authorization at a time.
    PrivateJoins(Single<PrivateJoins>),
    /// Insert rows with realtime.send and receive them as broadcasts (--database).
    ///
    /// At --rate R every row is a transaction of its own, and latency counts from just before its INSERT is sent to the
    /// arrival at a subscriber, commit and replication included. At --rate max rows come in transactions of --batch as
    /// fast as deliveries keep up; latency then shows the queue of --window rows. One connection inserts: while the
    /// server's load stays below 100 % of its cores, Postgres is the limit.
    ///
    /// Every subscriber must receive every row once and in the order of insertion, else the run fails. Postgres CPU
    /// includes the inserting itself. About the database and the policies see `swarm private-joins --help`.
    DatabaseEvents(Single<DatabaseEvents>),
    /// Insert rows into a table and receive them as Postgres Changes (--database).
    ///
    /// Every subscriber joins one channel with one entry for INSERTs of public.swarm_changes, and inserting begins once
    /// all of them are subscribed. --mode decides who receives a row: everybody (plain), one subscriber by its filter
    /// (filter), or everybody for whom the policy `owner = auth.uid() or shared` holds (rls; all rows are shared, all
    /// subscribers distinct users). With --secret every subscriber has its own claims in every mode, which a server may
    /// have to judge one by one; with --token all are one user.
    ///
    /// --rate and --batch are as in `swarm database-events --help`, and so are the checks: every subscriber must receive
    /// its rows once and in order, else the run fails. While the server's load stays below 100 % of its cores, look at
    /// the share of the time in which an INSERT was under way: near 100 % the one inserting connection is the limit,
    /// far below it the rest of Postgres or the generator.
    ///
    /// With --idle nothing is inserted, and the result is the transactions per second of the database without swarm's
    /// own (Postgres 15 or newer; autovacuum and other clients of the database are counted too).
    ///
    /// swarm makes the table, adds it to publication supabase_realtime and drops it at the end. The database must be
    /// that of the tenant, prepared with the roles, auth.uid() and the publication that the server expects. Make the
    /// tenant with `PUT /api/tenants/NAME`: extension postgres_cdc_rls with ssl_enforced false, max_events_per_second
    /// and max_concurrent_users far above the load, for rows beyond the limit are dropped and fail the run.
    PostgresChanges(Single<PostgresChanges>),
    /// Round trips against a bare TCP echo (`floor --tcp-echo`; --url tcp://127.0.0.1:PORT).
    TcpEcho(Single<TcpEcho>),
    /// Run scenarios P1–P7 and P10 against several servers, interleaved, and report medians and ratios.
    All(SuiteArgs),
}

/// A scenario with everything it needs.
#[derive(Debug, Args)]
struct Single<S: Args> {
    #[command(flatten)]
    scenario: S,
    /// WebSocket URL of the server.
    #[arg(long, default_value = "ws://127.0.0.1:4000/socket/websocket")]
    url: String,
    /// Process id of the server: adds its CPU time and memory to the result.
    #[arg(long)]
    pid: Option<u32>,
    #[command(flatten)]
    connect: ConnectArgs,
    #[command(flatten)]
    load: LoadArgs,
    /// Also write the result to this file as JSON.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

/// As whom and how to connect.
#[derive(Debug, Clone, Args)]
pub struct ConnectArgs {
    /// Host header; its first label selects the tenant.
    #[arg(long, default_value = "realtime-dev.localhost")]
    pub host: String,
    /// Secret of the tenant: every connection gets an HS256 token of its own, valid for a day (role anon; scenarios with a
    /// database: authenticated).
    #[arg(long, conflicts_with = "token")]
    pub secret: Option<String>,
    /// Token for all connections. Without this and --secret, only a server that checks nothing can be used.
    #[arg(long)]
    pub token: Option<String>,
    /// Protocol version.
    #[arg(long, value_enum, default_value_t = Vsn::V2)]
    pub vsn: Vsn,
    /// Send broadcasts as binary frames of kind 3, as the official client does (needs --vsn 2.0.0).
    #[arg(long)]
    pub binary: bool,
    /// Repeat the token in every join as `access_token`, as the official client does.
    #[arg(long)]
    pub join_token: bool,
    /// Source addresses used in turn, e.g. 127.0.0.2,127.0.0.3, when one runs out of ports.
    #[arg(long, value_delimiter = ',', value_name = "ADDRESS,…")]
    pub source: Vec<IpAddr>,
}

/// How much load, for how long, from where.
#[derive(Debug, Clone, Args)]
pub struct LoadArgs {
    /// Core for the generator to stay on.
    #[arg(long)]
    pub core: Option<usize>,
    /// Size of the user payload of a broadcast (34 at least).
    #[arg(long, default_value_t = 64)]
    pub payload_bytes: usize,
    /// Seconds counted.
    #[arg(long, default_value_t = 5.0)]
    pub duration_secs: f64,
    /// Seconds of load before counting begins.
    #[arg(long, default_value_t = 1.0)]
    pub warmup_secs: f64,
    /// Connections being opened at once.
    #[arg(long, default_value_t = 64)]
    pub concurrency: usize,
    /// Poll without ever sleeping: spares the server the cost of waking the generator, occupies a whole core.
    #[arg(long)]
    pub spin: bool,
}

/// Protocol version on the command line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Vsn {
    /// JSON objects.
    #[value(name = "1.0.0")]
    V1,
    /// JSON arrays and binary frames.
    #[value(name = "2.0.0")]
    V2,
}

impl ConnectArgs {
    /// The endpoint at `url`, with `host` instead of the general one if given.
    ///
    /// # Errors
    /// When the URL cannot be used or options contradict each other.
    pub fn endpoint(&self, url: &str, host: Option<&str>) -> Result<Endpoint, LoadError> {
        let (address, path) = Endpoint::locate(url)?;
        if self.binary && self.vsn == Vsn::V1 {
            return Err(LoadError::Argument("--binary needs --vsn 2.0.0".to_owned()));
        }
        let now_seconds = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |elapsed| elapsed.as_secs());
        let credentials = match (&self.secret, &self.token) {
            (Some(secret), _) => Credentials::Mint(Mint::new(secret, now_seconds)),
            (None, Some(token)) => Credentials::Token(token.clone()),
            (None, None) => Credentials::Token("none".to_owned()),
        };
        Ok(Endpoint {
            address,
            path,
            host: host.unwrap_or(&self.host).to_owned(),
            credentials,
            dialect: if self.vsn == Vsn::V1 { Dialect::V1 } else { Dialect::V2 },
            binary: self.binary,
            join_token: self.join_token,
            sources: self.source.clone(),
        })
    }
}

impl LoadArgs {
    /// The context of a run against `endpoint`, whose process is `pid`.
    ///
    /// # Errors
    /// When a time is not a number or the process does not exist.
    pub fn context(&self, endpoint: Endpoint, pid: Option<u32>, name: &str) -> Result<Context, LoadError> {
        let nanoseconds = |option: &str, seconds: f64| {
            if seconds.is_finite() && (0.0..=86_400.0).contains(&seconds) {
                Ok((seconds * 1e9) as u64)
            } else {
                Err(LoadError::Argument(format!("{option} must lie between 0 and 86400, not {seconds}")))
            }
        };
        let probe = |pid: u32| ServerProbe::new(pid).map_err(LoadError::io(format!("cannot watch process {pid} (--pid)")));
        Ok(Context {
            endpoint,
            probe: pid.map(probe).transpose()?,
            postgres: None,
            payload_bytes: self.payload_bytes,
            warmup_ns: nanoseconds("--warmup-secs", self.warmup_secs)?,
            duration_ns: nanoseconds("--duration-secs", self.duration_secs)?,
            concurrency: self.concurrency,
            spin: self.spin,
            progress: Progress::new(name),
        })
    }

    /// Prepares this process: core and file limit.
    ///
    /// # Errors
    /// When the core cannot be had or the limit not be read.
    pub fn prepare(&self) -> Result<(), LoadError> {
        machine::raise_file_limit().map_err(LoadError::io("cannot raise the limit of open files"))?;
        if let Some(core) = self.core {
            machine::pin_to_core(core).map_err(LoadError::io(format!("cannot stay on core {core} (--core)")))?;
        }
        Ok(())
    }
}

/// Runs what the command line asks for.
///
/// # Errors
/// Whatever stopped the run.
pub fn run(cli: &Cli) -> Result<(), LoadError> {
    match &cli.command {
        Command::Fanout(single) => single.run("fanout"),
        Command::Echo(single) => single.run("echo"),
        Command::Mix(single) => single.run("mix"),
        Command::Idle(single) => single.run("idle"),
        Command::Joinstorm(single) => single.run("joinstorm"),
        Command::Slow(single) => single.run("slow"),
        Command::Presence(single) => single.run("presence"),
        Command::PrivateJoins(single) => single.run("private-joins"),
        Command::DatabaseEvents(single) => single.run("database-events"),
        Command::PostgresChanges(single) => single.run("postgres-changes"),
        Command::TcpEcho(single) => single.run("tcp-echo"),
        Command::All(suite) => suite.run(),
    }
}

impl<S: Args + Scenario> Single<S> {
    fn run(&self, name: &str) -> Result<(), LoadError> {
        let endpoint = self.connect.endpoint(&self.url, None)?;
        let context = self.load.context(endpoint, self.pid, name)?;
        self.load.prepare()?;
        let outcome = self.scenario.run(&context)?;
        print!("{}", outcome_table(name, &outcome));
        self.json.as_ref().map_or(Ok(()), |path| write_outcome(path, &outcome))
    }
}

fn write_outcome(path: &PathBuf, outcome: &Outcome) -> Result<(), LoadError> {
    let text = serde_json::to_string_pretty(outcome).expect("an outcome is a map of numbers");
    fs::write(path, text + "\n").map_err(LoadError::io(format!("cannot write {}", path.display())))
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory as _;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn contradictions_are_refused() {
        let parse = |arguments: &[&str]| Cli::try_parse_from(arguments);
        assert!(parse(&["swarm", "fanout", "--window", "4", "--rate", "5"]).is_err());
        assert!(parse(&["swarm", "fanout", "--secret", "a", "--token", "b"]).is_err());
        assert!(parse(&["swarm", "echo", "--vsn", "3.0.0"]).is_err());
        assert!(parse(&["swarm", "private-joins", "--window", "4"]).is_err(), "a database is needed");
        assert!(parse(&["swarm", "database-events", "--database", "postgres://a", "--rate", "most"]).is_err());
        assert!(parse(&["swarm", "database-events", "--database", "postgres://a", "--rate", "max"]).is_ok());
        let changes =
            |arguments: &[&str]| parse(&[&["swarm", "postgres-changes", "--database", "postgres://a"], arguments].concat());
        assert!(changes(&["--mode", "rls", "--rate", "max", "--batch", "10"]).is_ok());
        assert!(changes(&["--mode", "all"]).is_err());
        assert!(changes(&["--idle"]).is_ok() && changes(&["--idle", "--rate", "5"]).is_err());
        assert!(parse(&["swarm", "mix", "--users", "9", "--vsn", "1.0.0"]).is_ok());
    }
}
