//! Which shard should own a socket (architecture 2).
//!
//! A tenant's shards are ordered by rendezvous hashing, so the order is the same everywhere without any table. It starts on
//! the first one and uses one more each time its sockets pass another threshold; a socket that landed on a shard in use
//! stays there unless that shard holds clearly more than its share.

use std::hash::{DefaultHasher, Hash, Hasher};

use crate::config::Spread;

/// A socket moves only when another shard has this many fewer of the tenant's sockets: moving costs more than a small
/// imbalance.
const IMBALANCE_MIN: u64 = 64;

/// Shards of a tenant in order of preference.
fn preference(external_id: &str, shards: usize) -> Vec<usize> {
    let weight = |shard: &usize| {
        let mut hasher = DefaultHasher::new();
        (external_id, shard).hash(&mut hasher);
        std::cmp::Reverse(hasher.finish())
    };
    let mut order: Vec<usize> = (0..shards).collect();
    order.sort_by_key(weight);
    order
}

/// The shard that should own a new socket of the tenant. `connections` are the tenant's sockets by shard, `landed` is
/// where the connection was accepted.
pub fn place(external_id: &str, connections: &[u64], landed: usize, spread: Spread, threshold: u64) -> usize {
    let shards = connections.len();
    if shards == 1 {
        return 0;
    }
    let total: u64 = connections.iter().sum();
    let used = match spread {
        Spread::All => shards,
        Spread::Shards(n) => usize::from(n),
        Spread::Auto => usize::try_from(total / threshold.max(1)).unwrap_or(shards).saturating_add(1),
    };
    let order = preference(external_id, shards);
    let candidates = &order[..used.clamp(1, shards)];
    let least = candidates.iter().copied().min_by_key(|&shard| connections[shard]).unwrap_or(landed);
    if candidates.contains(&landed) && connections[landed] < connections[least] + IMBALANCE_MIN { landed } else { least }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_small_tenant_stays_on_one_shard_wherever_it_lands() {
        let home = place("t1", &[0, 0, 0, 0], 0, Spread::Auto, 100);
        let mut connections = [0; 4];
        for landed in 0..40 {
            let shard = place("t1", &connections, landed % 4, Spread::Auto, 100);
            assert_eq!(shard, home);
            connections[shard] += 1;
        }
    }

    #[test]
    fn tenants_have_different_homes() {
        let homes: std::collections::HashSet<_> =
            (0..50).map(|n| place(&format!("t{n}"), &[0; 4], 0, Spread::Auto, 100)).collect();
        assert_eq!(homes.len(), 4);
    }

    #[test]
    fn a_big_tenant_uses_every_shard_evenly() {
        let mut connections = [0u64; 4];
        for n in 0..4_000 {
            connections[place("t1", &connections, n % 4, Spread::Auto, 500)] += 1;
        }
        let (least, most) = (connections.iter().min().unwrap(), connections.iter().max().unwrap());
        assert!(most - least <= 500 + IMBALANCE_MIN, "{connections:?}");
    }

    #[test]
    fn all_keeps_sockets_where_they_land() {
        assert_eq!(place("t1", &[10, 0, 5], 0, Spread::All, 100), 0);
        assert_eq!(place("t1", &[1000, 0, 5], 0, Spread::All, 100), 1);
    }

    #[test]
    fn a_fixed_number_is_respected() {
        let mut connections = [0u64; 4];
        for n in 0..1_000 {
            connections[place("t1", &connections, n % 4, Spread::Shards(2), 1)] += 1;
        }
        assert_eq!(connections.iter().filter(|&&count| count > 0).count(), 2);
    }
}
