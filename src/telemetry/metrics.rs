//! Builds the metric families of `GET /metrics` from counter snapshots (operations 6.2, 6.3).
//!
//! Names of the reference are used where the meaning is the same, so existing dashboards work; our own
//! start with `ringcast_`. Every sample carries the node labels `region`, `host` and `id`. Every
//! family is present even without tenants. The control plane calls `families` per scrape and gives the
//! result to `prometheus::render`. Pure.

use super::{
    counters::{CounterKind, SHARD_FIELDS, ShardSnapshot},
    prometheus::Family,
};

/// Labels of every sample.
#[derive(Debug, Clone, Default)]
pub struct NodeLabels {
    /// `REGION`, may be empty.
    pub region: String,
    /// Host name.
    pub host: String,
    /// Node name.
    pub id: String,
}

/// Numbers of one tenant on this node.
#[derive(Debug, Clone, Default)]
pub struct TenantSample {
    /// The label `tenant`.
    pub external_id: String,
    /// Connected users.
    pub connected: u64,
    /// Joins counted since start.
    pub joins: u64,
    /// Events counted since start.
    pub events: u64,
    /// Presence events counted since start.
    pub presence_events: u64,
    /// Requests to the tenant's HTTP endpoints since start.
    pub http_requests: u64,
}

/// Everything one scrape shows.
#[derive(Debug, Clone, Default)]
pub struct MetricsInput {
    /// Labels of every sample.
    pub node: NodeLabels,
    /// One reading per shard, by shard number.
    pub shards: Vec<ShardSnapshot>,
    /// Every tenant seen on this node.
    pub tenants: Vec<TenantSample>,
    /// Soft maximum of connections.
    pub connections_max: u64,
}

/// The families of one scrape, in a stable order.
pub fn families(input: &MetricsInput) -> Vec<Family> {
    let mut families = tenant_families(input);
    families.extend(global_families(input));
    families.push(joined_family(input));
    families.extend(shard_families(input));
    families
}

use CounterKind::{Counter, Gauge};

type TenantValue = fn(&TenantSample) -> u64;

const TENANT_METRICS: &[(&str, CounterKind, &str, TenantValue)] = &[
    ("realtime_connections_connected", Gauge, "Connected users of the tenant on this node.", |t| t.connected),
    ("realtime_connections_connected_cluster", Gauge, "Connected users of the tenant in the cluster.", |t| t.connected),
    ("realtime_channel_joins", Counter, "Joins of the tenant.", |t| t.joins),
    ("realtime_channel_events", Counter, "Events of the tenant.", |t| t.events),
    ("realtime_channel_presence_events", Counter, "Presence events of the tenant.", |t| t.presence_events),
    ("ringcast_tenant_http_requests_total", Counter, "Requests to the HTTP endpoints of the tenant.", |t| t.http_requests),
];

fn tenant_families(input: &MetricsInput) -> Vec<Family> {
    TENANT_METRICS
        .iter()
        .map(|&(name, kind, help, value)| {
            let mut family = Family::new(name, kind, help);
            for tenant in &input.tenants {
                let labels = node_labels(input, [("tenant", tenant.external_id.clone())]);
                family.push(labels, value(tenant));
            }
            family
        })
        .collect()
}

fn global_families(input: &MetricsInput) -> Vec<Family> {
    let tenants = |value: TenantValue| input.tenants.iter().map(value).sum::<u64>();
    let shards = |value: fn(&ShardSnapshot) -> u64| input.shards.iter().map(value).sum::<u64>();
    let users = tenants(|t| t.connected);
    let open = shards(|s| s.connections_open);
    let metrics = [
        ("realtime_connections_global_connected", Gauge, "Connected users of all tenants on this node.", users),
        ("realtime_connections_global_connected_cluster", Gauge, "Connected users of all tenants in the cluster.", users),
        ("realtime_channel_global_joins", Counter, "Joins of all tenants.", tenants(|t| t.joins)),
        ("realtime_channel_global_events", Counter, "Events of all tenants.", tenants(|t| t.events)),
        ("realtime_channel_global_presence_events", Counter, "Presence events of all tenants.", tenants(|t| t.presence_events)),
        ("realtime_channel_global_input_bytes", Counter, "Bytes received on sockets.", shards(|s| s.bytes_in)),
        ("realtime_channel_global_output_bytes", Counter, "Bytes sent on sockets.", shards(|s| s.bytes_out)),
        ("phoenix_connections_total", Gauge, "TCP connections.", open),
        ("phoenix_connections_active", Gauge, "TCP connections being served.", open),
        ("phoenix_connections_max", Gauge, "Soft maximum of TCP connections.", input.connections_max),
    ];
    metrics
        .into_iter()
        .map(|(name, kind, help, value)| {
            let mut family = Family::new(name, kind, help);
            family.push(node_labels(input, []), value);
            family
        })
        .collect()
}

/// Join attempts by result; the transport is always a WebSocket here.
fn joined_family(input: &MetricsInput) -> Family {
    let mut family = Family::new("phoenix_channel_joined_total", Counter, "Join attempts.");
    let ok = input.shards.iter().map(|s| s.joins_ok).sum();
    let error = input.shards.iter().map(|s| s.joins_error).sum();
    for (result, value) in [("ok", ok), ("error", error)] {
        let labels = [("result", result.to_owned()), ("transport", "websocket".to_owned()), ("endpoint", "ringcast".to_owned())];
        family.push(node_labels(input, labels), value);
    }
    family
}

fn shard_families(input: &MetricsInput) -> Vec<Family> {
    let values: Vec<_> = input.shards.iter().map(ShardSnapshot::values).collect();
    SHARD_FIELDS
        .iter()
        .enumerate()
        .map(|(index, field)| {
            let mut family = Family::new(field.metric, field.kind, field.help);
            for (shard, values) in values.iter().enumerate() {
                let labels = node_labels(input, [("shard", shard.to_string())]);
                family.push(labels, values[index]);
            }
            family
        })
        .collect()
}

fn node_labels<const N: usize>(input: &MetricsInput, own: [(&'static str, String); N]) -> Vec<(&'static str, String)> {
    let node = &input.node;
    let mut labels = vec![("region", node.region.clone()), ("host", node.host.clone()), ("id", node.id.clone())];
    labels.extend(own);
    labels
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::prometheus::{render, strict};

    const NODE: [(&str, &str); 3] = [("host", "h"), ("id", "n1"), ("region", "eu")];

    fn input() -> MetricsInput {
        MetricsInput {
            node: NodeLabels { region: "eu".to_owned(), host: "h".to_owned(), id: "n1".to_owned() },
            connections_max: 100,
            ..MetricsInput::default()
        }
    }

    #[test]
    fn reference_names_exist_without_tenants() {
        let parsed = strict::parse(&render(&families(&input())));
        for name in ["realtime_connections_connected", "realtime_channel_joins"] {
            assert!(parsed.families.iter().any(|family| family == name), "{name}");
            assert_eq!(parsed.count(name), 0);
        }
        assert_eq!(parsed.value("phoenix_connections_max", &NODE), Some(100.0));
    }

    #[test]
    fn tenants_are_labelled_and_summed() {
        let mut input = input();
        for (external_id, connected, joins) in [("a", 2, 10), ("we\"ird\n", 3, 20)] {
            input.tenants.push(TenantSample { external_id: external_id.to_owned(), connected, joins, ..TenantSample::default() });
        }
        let parsed = strict::parse(&render(&families(&input)));
        let labels = [NODE[0], NODE[1], NODE[2], ("tenant", "we\"ird\n")];
        assert_eq!(parsed.value("realtime_connections_connected", &labels), Some(3.0));
        let global = parsed.value("realtime_channel_global_joins", &NODE);
        assert_eq!(global, Some(30.0));
    }

    #[test]
    fn shards_are_labelled_and_summed() {
        let mut input = input();
        let shard =
            |open, joins_ok, bytes_in| ShardSnapshot { connections_open: open, joins_ok, bytes_in, ..ShardSnapshot::default() };
        input.shards = vec![shard(1, 5, 100), shard(2, 6, 200)];
        let parsed = strict::parse(&render(&families(&input)));
        let second = [NODE[0], NODE[1], NODE[2], ("shard", "1")];
        assert_eq!(parsed.value("ringcast_shard_bytes_in_total", &second), Some(200.0));
        assert_eq!(parsed.value("phoenix_connections_active", &NODE), Some(3.0));
        let bytes = parsed.value("realtime_channel_global_input_bytes", &NODE);
        assert_eq!(bytes, Some(300.0));
        let joined = [("endpoint", "ringcast"), NODE[0], NODE[1], NODE[2], ("result", "ok"), ("transport", "websocket")];
        assert_eq!(parsed.value("phoenix_channel_joined_total", &joined), Some(11.0));
    }
}
