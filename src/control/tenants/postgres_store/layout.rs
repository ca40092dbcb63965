//! The tables of the registry as the reference's migrations leave them (http-api.md 13.1–13.4).
//!
//! Data only; `schema` makes databases look like this. A column's type is spelled as Postgres prints it, so that it can be
//! compared with what is there.

/// A column.
pub(super) struct Column {
    pub name: &'static str,
    pub sql_type: &'static str,
    pub nullable: bool,
    pub default: Option<&'static str>,
}

/// A table with a `uuid` or `bigint` key in its first column.
pub(super) struct Table {
    pub name: &'static str,
    pub columns: &'static [Column],
    /// Constraint that only a new table gets, if any.
    pub reference: Option<&'static str>,
    /// Name and expression of its check, if any.
    pub check: Option<(&'static str, &'static str)>,
    /// Statements that make missing indexes.
    pub indexes: &'static [&'static str],
}

const TIMESTAMP: &str = "timestamp(0) without time zone";
const SHORT_TEXT: &str = "character varying(255)";

const fn needed(name: &'static str, sql_type: &'static str) -> Column {
    Column { name, sql_type, nullable: false, default: None }
}

const fn filled(name: &'static str, sql_type: &'static str, default: &'static str) -> Column {
    Column { name, sql_type, nullable: false, default: Some(default) }
}

const fn optional(name: &'static str, sql_type: &'static str) -> Column {
    Column { name, sql_type, nullable: true, default: None }
}

const fn usual(name: &'static str, sql_type: &'static str, default: &'static str) -> Column {
    Column { name, sql_type, nullable: true, default: Some(default) }
}

/// All tables but the bookkeeping one, in the order in which they can be made.
pub(super) const TABLES: [Table; 3] = [
    Table {
        name: "tenants",
        columns: &[
            needed("id", "uuid"),
            optional("name", "text"),
            optional("external_id", "text"),
            optional("jwt_secret", "text"),
            filled("max_concurrent_users", "integer", "200"),
            needed("inserted_at", TIMESTAMP),
            needed("updated_at", TIMESTAMP),
            filled("max_events_per_second", "integer", "100"),
            usual("postgres_cdc_default", "text", "'postgres_cdc_rls'"),
            filled("max_bytes_per_second", "integer", "100000"),
            filled("max_channels_per_client", "integer", "100"),
            filled("max_joins_per_second", "integer", "500"),
            usual("suspend", "boolean", "false"),
            optional("jwt_jwks", "jsonb"),
            usual("notify_private_alpha", "boolean", "false"),
            filled("private_only", "boolean", "false"),
            usual("migrations_ran", "integer", "0"),
            usual("broadcast_adapter", SHORT_TEXT, "'gen_rpc'"),
            usual("max_presence_events_per_second", "integer", "1000"),
            usual("max_payload_size_in_kb", "integer", "3000"),
            optional("max_client_presence_events_per_window", "integer"),
            optional("client_presence_window_ms", "integer"),
            filled("presence_enabled", "boolean", "false"),
            filled("feature_flags", "jsonb", "'{}'"),
            optional("gcm_migrated_at", TIMESTAMP),
        ],
        reference: None,
        check: Some(("jwt_secret_or_jwt_jwks_required", "jwt_secret is not null or jwt_jwks is not null")),
        indexes: &["create unique index if not exists tenants_external_id_index on tenants (external_id)"],
    },
    Table {
        name: "extensions",
        columns: &[
            needed("id", "uuid"),
            optional("type", "text"),
            optional("settings", "jsonb"),
            optional("tenant_external_id", "text"),
            needed("inserted_at", TIMESTAMP),
            needed("updated_at", TIMESTAMP),
        ],
        reference: Some(
            "constraint extensions_tenant_external_id_fkey \
             foreign key (tenant_external_id) references tenants (external_id) on delete cascade",
        ),
        check: None,
        indexes: &[
            "create unique index if not exists extensions_tenant_external_id_type_index \
             on extensions (tenant_external_id, type)",
            "create index if not exists extensions_tenant_external_id_index on extensions (tenant_external_id)",
        ],
    },
    Table {
        name: "feature_flags",
        columns: &[
            needed("id", "uuid"),
            needed("name", SHORT_TEXT),
            filled("enabled", "boolean", "false"),
            filled("rollout_percentage", "integer", "100"),
            optional("bucket_key", SHORT_TEXT),
            needed("inserted_at", TIMESTAMP),
            needed("updated_at", TIMESTAMP),
        ],
        reference: None,
        check: Some(("rollout_percentage_must_be_between_0_and_100", "rollout_percentage between 0 and 100")),
        indexes: &["create unique index if not exists feature_flags_name_index on feature_flags (name)"],
    },
];

/// The bookkeeping of migrations.
pub(super) const SCHEMA_MIGRATIONS: Table = Table {
    name: "schema_migrations",
    columns: &[needed("version", "bigint"), optional("inserted_at", TIMESTAMP)],
    reference: None,
    check: None,
    indexes: &[],
};

/// The reference's migrations, in order.
pub(super) const VERSIONS: [i64; 33] = [
    20210706140551,
    20220329161857,
    20220410212326,
    20220506102948,
    20220527210857,
    20220815211129,
    20220815215024,
    20220818141501,
    20221018173709,
    20221102172703,
    20221223010058,
    20230110180046,
    20230810220907,
    20230810220924,
    20231024094642,
    20240306114423,
    20240418082835,
    20240625211759,
    20240704172020,
    20240902173232,
    20241106103258,
    20250424203323,
    20250613072131,
    20250711044927,
    20250811121559,
    20250926223044,
    20251204170944,
    20251218000543,
    20260209232800,
    20260304000000,
    20260422000000,
    20260709151810,
    20260805000000,
];

impl Table {
    /// The statement that makes the table, without indexes.
    pub fn create_sql(&self) -> String {
        let mut parts: Vec<String> =
            self.columns.iter().enumerate().map(|(place, column)| column.definition(place == 0)).collect();
        parts.extend(self.reference.map(str::to_owned));
        format!("create table {} ({})", self.name, parts.join(", "))
    }
}

impl Column {
    /// The column in `create table` and `add column`.
    pub fn definition(&self, is_key: bool) -> String {
        let default = self.default.map_or_else(String::new, |default| format!(" default {default}"));
        let rule = match (is_key, self.nullable) {
            (true, _) => " primary key",
            (false, true) => "",
            (false, false) => " not null",
        };
        format!("\"{}\" {}{default}{rule}", self.name, self.sql_type)
    }
}
