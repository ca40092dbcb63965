//! `floor`: a bare io_uring WebSocket fan-out server, the yardstick of the load tests.

use clap::Parser;
use ringcast_loadtest::floor::{Mode, Server};
use ringcast_loadtest::machine;
use std::io;
use std::net::{Ipv4Addr, TcpListener};
use std::process::ExitCode;

/// A bare io_uring WebSocket fan-out server without protocol checks: the yardstick for `swarm`.
///
/// It answers any upgrade and any join and forwards broadcasts. No authentication, no validation, no limits:
/// it listens on 127.0.0.1 only.
#[derive(Parser)]
#[command(
    version,
    after_help = "Examples:
  floor --port 4001 --core 0
  floor --tcp-echo --port 4002 --core 0     bare TCP echo, for round-trip comparisons
  floor --port 0                            any free port; the address is printed"
)]
struct Arguments {
    /// Port on 127.0.0.1; 0 takes a free one and prints it.
    #[arg(long, default_value_t = 4001)]
    port: u16,
    /// Core to stay on.
    #[arg(long)]
    core: Option<usize>,
    /// Send back raw bytes instead of speaking WebSocket.
    #[arg(long)]
    tcp_echo: bool,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    match serve(&arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("floor: {error}");
            ExitCode::FAILURE
        }
    }
}

fn serve(arguments: &Arguments) -> io::Result<()> {
    machine::raise_file_limit()?;
    if let Some(core) = arguments.core {
        let failed = |error| io::Error::other(format!("cannot stay on core {core}: {error}"));
        machine::pin_to_core(core).map_err(failed)?;
    }
    let failed = |error| io::Error::other(format!("cannot listen on 127.0.0.1:{}: {error}", arguments.port));
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, arguments.port)).map_err(failed)?;
    let mode = if arguments.tcp_echo { Mode::TcpEcho } else { Mode::WebSocket };
    println!("listening on {} (pid {})", listener.local_addr()?, std::process::id());
    Server::new(listener, mode)?.run()
}
