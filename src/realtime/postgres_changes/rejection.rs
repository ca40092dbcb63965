//! What a client is told when the database does not take its subscription (protocol 11.4 d and e, database 7.4).
//!
//! Called by whoever stores subscriptions, after the rollback. Neither case is tried again. Names are printed bare, filters
//! and columns in Elixir syntax, on one line.

use std::fmt::Write;

use super::inspect;
use super::sqlstate::condition_name;
use super::subscription::Subscription;

/// No table of the publication matches the subscription (error A).
pub fn message_not_published(subscription: &Subscription) -> String {
    let start = "Unable to subscribe to changes with given parameters. \
                 Please check Realtime is enabled for the given connect parameters: ";
    with_parameters(start, subscription)
}

/// The database raised an error about the subscription (error B): its severity (`ERROR`, not localised), its SQLSTATE and its
/// primary message.
pub fn message_rejected(subscription: &Subscription, severity: &str, sqlstate: &str, message: &str) -> String {
    let start = "Unable to subscribe to changes with given parameters. \
                 An exception happened so please check your connect parameters: ";
    let mut out = with_parameters(start, subscription);
    match condition_name(sqlstate) {
        Some(name) => write!(out, ". Exception: {severity} {sqlstate} ({name}) {message}"),
        None => write!(out, ". Exception: {severity} {sqlstate} {message}"),
    }
    .expect("memory can be written to");
    out
}

fn with_parameters(start: &str, subscription: &Subscription) -> String {
    let Subscription { event, schema, table, filters, select } = subscription;
    let mut out = format!("{start}[event: {}, schema: {schema}, table: {table}, filters: ", event.as_str());
    inspect::listed(&mut out, "[", "]", filters, |out, filter| {
        out.push('{');
        for text in [&filter.column, filter.op.as_str(), &filter.value] {
            inspect::string(out, text);
            out.push_str(", ");
        }
        out.push_str(if filter.negate { "true}" } else { "false}" });
    });
    out.push_str(", select: ");
    match select {
        None => out.push_str("nil"),
        Some(columns) => inspect::strings(&mut out, columns),
    }
    out.push(']');
    out
}

#[cfg(test)]
mod tests {
    use super::super::subscription::parse;
    use super::*;

    #[test]
    fn not_published() {
        let subscription = parse(r#"{"event":"insert","schema":"public","table":"no_such_table"}"#).unwrap();
        assert_eq!(
            message_not_published(&subscription),
            "Unable to subscribe to changes with given parameters. Please check Realtime is enabled for the given connect \
             parameters: [event: INSERT, schema: public, table: no_such_table, filters: [], select: nil]"
        );
    }

    #[test]
    fn rejected() {
        let start = "Unable to subscribe to changes with given parameters. An exception happened so please check your connect \
                     parameters: ";
        let subscription = parse(r#"{"schema":"public","table":"orders","filter":"nope=eq.123"}"#).unwrap();
        assert_eq!(
            message_rejected(&subscription, "ERROR", "P0001", "invalid column for filter nope"),
            format!(
                "{start}[event: *, schema: public, table: orders, filters: [{{\"nope\", \"eq\", \"123\", false}}], select: nil]. \
                 Exception: ERROR P0001 (raise_exception) invalid column for filter nope"
            )
        );
        let entry = r#"{"schema":"s","table":"t","filter":"a=not.in.(1,\"x\"),b=eq.#{}","select":["c","d\"e"]}"#;
        assert_eq!(
            message_rejected(&parse(entry).unwrap(), "FATAL", "ZZ999", "no name"),
            format!(
                "{start}[event: *, schema: s, table: t, filters: [{{\"a\", \"in\", \"{{1,\\\"x\\\"}}\", true}}, \
                 {{\"b\", \"eq\", \"\\#{{}}\", false}}], select: [\"c\", \"d\\\"e\"]]. Exception: FATAL ZZ999 no name"
            )
        );
    }
}
