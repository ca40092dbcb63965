//! What `ringcast check` says about hosts that are not this one.

use super::*;
use crate::cli::check::finding::Verdict;

fn good_host() -> Host {
    Host {
        kernel_release: "6.8.0-45-generic".to_owned(),
        io_uring: Ok(()),
        open_files: Some((1024, 524_288)),
        somaxconn: Some(4096),
        syn_backlog: Some(4096),
        netdev_backlog: Some(1000),
        local_ports: Some((32_768, 60_999)),
        tcp_memory: Some([1 << 30, 2 << 30, 3 << 30]),
        tcp_read_buffer: Some([4096, 131_072, 6 << 20]),
        tcp_write_buffer: Some([4096, 16_384, 4 << 20]),
        allowed_cpus: vec![0, 1, 2, 3],
        huge_pages: Some("madvise".to_owned()),
        memory_total: Some(24 << 30),
        memory_limit: None,
        state_dir: Ok(()),
    }
}

fn config(extra: &[(&str, &str)]) -> Config {
    let env = |name: &str| {
        let secrets = [("API_JWT_SECRET", "s"), ("METRICS_JWT_SECRET", "m")];
        let mut all = extra.iter().chain(&secrets);
        let found = all.find(|(variable, _)| *variable == name);
        found.map(|(_, value)| (*value).to_owned())
    };
    Config::load(&env, None).expect("valid")
}

/// Verdict, text and advice about `subject`.
fn about(subject: &str, extra: &[(&str, &str)], change: impl FnOnce(&mut Host)) -> Finding {
    let mut host = good_host();
    change(&mut host);
    let findings = judge(&config(extra), &host);
    let found = findings.into_iter().find(|finding| finding.subject == subject);
    found.unwrap_or_else(|| panic!("nothing about {subject}"))
}

#[test]
fn a_good_host_is_all_ok() {
    for finding in judge(&config(&[]), &good_host()) {
        assert_eq!(finding.verdict, Verdict::Ok, "{finding:?}");
        assert_eq!(finding.advice, None);
    }
}

#[test]
fn everything_but_ok_has_advice() {
    let mut host = good_host();
    host.kernel_release = "4.19.0".to_owned();
    host.io_uring = Err(libc::ENOSYS);
    host.open_files = Some((1024, 4096));
    host.somaxconn = Some(128);
    host.huge_pages = Some("always".to_owned());
    host.state_dir = Err("no".to_owned());
    let findings = judge(&config(&[("NUM_ACCEPTORS", "1"), ("PROM_POLL_RATE", "1")]), &host);
    for finding in &findings {
        assert_eq!(finding.verdict == Verdict::Ok, finding.advice.is_none(), "{finding:?}");
    }
    let bad = findings.iter().filter(|f| f.verdict != Verdict::Ok);
    assert_eq!(bad.count(), 7);
}

#[test]
fn kernel_releases_are_understood() {
    let version = |text| kernel_version(text).map(|v| v.to_string());
    assert_eq!(version("5.15.0-1052-aws").as_deref(), Some("5.15.0"));
    assert_eq!(version("6.1").as_deref(), Some("6.1.0"));
    assert_eq!(version("5.10.0+").as_deref(), Some("5.10.0"));
    assert_eq!(version("6.18.44-fc-v445").as_deref(), Some("6.18.44"));
    assert_eq!(version("generic"), None);
    let old = about("kernel", &[], |host| host.kernel_release = "5.4.0-x".to_owned());
    assert_eq!(old.verdict, Verdict::Warn);
}

#[test]
fn a_refused_io_uring_depends_on_the_driver() {
    let refused = |driver: &str, errno| about("io_uring", &[("RINGCAST_DRIVER", driver)], |host| host.io_uring = Err(errno));
    let auto = refused("auto", libc::EPERM);
    assert_eq!(auto.verdict, Verdict::Warn);
    assert!(auto.found.contains("EPERM") && auto.found.contains("epoll"));
    assert!(auto.advice.expect("advice").contains("seccomp"));
    assert_eq!(refused("io_uring", libc::ENOSYS).verdict, Verdict::Fail);
    assert_eq!(refused("epoll", libc::ENOSYS).verdict, Verdict::Ok);
    let locked = refused("auto", libc::ENOMEM).advice.expect("advice");
    assert!(locked.contains("MEMLOCK"));
}

#[test]
fn the_hard_limit_of_files_decides() {
    let enough = about("open files", &[], |host| host.open_files = Some((1024, 16_640)));
    assert_eq!(enough.verdict, Verdict::Ok);
    let short = about("open files", &[], |host| host.open_files = Some((1024, 16_639)));
    assert_eq!(short.verdict, Verdict::Fail);
    assert!(short.advice.expect("advice").contains("LimitNOFILE=16640"));
    let chosen = about("open files", &[("RLIMIT_NOFILE", "8000")], |_| {});
    assert_eq!(chosen.verdict, Verdict::Fail, "the configured soft limit is too low");
}

#[test]
fn short_queues_name_their_sysctl() {
    let short = about("somaxconn", &[], |host| host.somaxconn = Some(128));
    assert_eq!(short.advice.as_deref(), Some("sysctl -w net.core.somaxconn=4096"));
    let fits = about("somaxconn", &[("RINGCAST_BACKLOG", "128")], |host| {
        host.somaxconn = Some(128);
    });
    assert_eq!(fits.verdict, Verdict::Ok);
}

#[test]
fn memory_is_the_smaller_of_machine_and_group() {
    let group = about("memory", &[], |host| host.memory_limit = Some(400 << 20));
    assert_eq!(group.verdict, Verdict::Warn);
    assert!(group.found.contains("control group"), "{}", group.found);
    let unlimited = about("memory", &[], |host| host.memory_limit = Some(u64::MAX / 2));
    assert_eq!(unlimited.verdict, Verdict::Ok);
    let outbox = about("outbox budget", &[], |host| host.memory_limit = Some(512 << 20));
    let advice = outbox.advice.expect("advice");
    assert_eq!(advice, "WEBSOCKET_MAX_HEAP_SIZE=4000000");
}

#[test]
fn cores_outside_the_set_fail_and_shared_cores_warn() {
    let outside = about("cpus", &[("RINGCAST_CORES", "9")], |_| {});
    assert_eq!(outside.verdict, Verdict::Fail);
    let shared = about("cpus", &[("RINGCAST_SHARDS", "8")], |_| {});
    assert_eq!(shared.verdict, Verdict::Warn);
    assert_eq!(shared.advice.as_deref(), Some("RINGCAST_SHARDS=4"));
}

#[test]
fn missing_secrets_are_pointed_out() {
    let findings = judge(&Config::defaults(), &good_host());
    for name in ["API_JWT_SECRET", "METRICS_JWT_SECRET"] {
        let finding = findings.iter().find(|f| f.subject == name);
        assert_eq!(finding.map(|f| f.verdict), Some(Verdict::Warn));
    }
}
