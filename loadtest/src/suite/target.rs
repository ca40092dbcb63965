//! A server on the command line: `NAME=URL[,pid=PID][,host=HOST][,skip=P7+P10]`.

use std::str::FromStr;

/// A server to compare.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TargetSpec {
    /// Name in tables and plots.
    pub name: String,
    /// `ws://…`, or `tcp://…` for a bare echo.
    pub url: String,
    /// Its process.
    pub pid: Option<u32>,
    /// Host header, if not the general one.
    pub host: Option<String>,
    /// Scenarios it takes no part in.
    pub skip: Vec<String>,
}

impl TargetSpec {
    /// Whether this is a bare TCP echo.
    pub fn is_bare_tcp(&self) -> bool {
        self.url.starts_with("tcp://")
    }
}

impl FromStr for TargetSpec {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut parts = text.split(',');
        let (name, url) = parts
            .next()
            .and_then(|first| first.split_once('='))
            .filter(|(name, url)| !name.is_empty() && url.contains("://"))
            .ok_or("a target looks like NAME=ws://127.0.0.1:4000/socket/websocket,pid=1234")?;
        let (name, url) = (name.to_owned(), url.to_owned());
        let mut target = Self { name, url, pid: None, host: None, skip: Vec::new() };
        for part in parts {
            match part.split_once('=') {
                Some(("pid", pid)) => {
                    target.pid = Some(pid.parse().map_err(|_| format!("{pid:?} is not a process id"))?);
                }
                Some(("host", host)) => target.host = Some(host.to_owned()),
                Some(("skip", ids)) => target.skip = ids.split('+').map(str::to_owned).collect(),
                _ => return Err(format!("{part:?} is none of pid=…, host=…, skip=…")),
            }
        }
        Ok(target)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn targets_are_parsed() {
        let target: TargetSpec = "floor=ws://127.0.0.1:1/,pid=7,host=a.b,skip=P5+P10".parse().unwrap();
        assert_eq!((target.name.as_str(), target.url.as_str()), ("floor", "ws://127.0.0.1:1/"));
        assert_eq!((target.pid, target.host.as_deref()), (Some(7), Some("a.b")));
        assert_eq!(target.skip, ["P5", "P10"]);
        assert!(!target.is_bare_tcp());
        assert!("tcp=tcp://127.0.0.1:1".parse::<TargetSpec>().unwrap().is_bare_tcp());
    }

    #[test]
    fn bad_targets_are_explained() {
        for bad in ["", "floor", "=ws://a", "a=b", "a=ws://b,pid=x", "a=ws://b,what"] {
            assert!(bad.parse::<TargetSpec>().is_err(), "{bad}");
        }
    }
}
