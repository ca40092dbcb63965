//! An empty database reaches the objects of database.md section 5, with owners, rights and defaults.

use super::{Session, migrated};

const OWNER: &str = "supabase_realtime_admin";

/// Functions as `name|arguments with defaults|result|language, volatility|strict|settings`.
const FUNCTIONS: [&str; 15] = [
    "apply_rls|wal jsonb, max_record_bytes integer DEFAULT (1024 * 1024)|SETOF realtime.wal_rls|plpgsql v|f|null",
    "broadcast_changes|topic_name text, event_name text, operation text, table_name text, table_schema text, new record, old record, level text DEFAULT 'ROW'::text|void|plpgsql v|f|null",
    "build_prepared_statement_sql|prepared_statement_name text, entity regclass, columns realtime.wal_column[]|text|sql v|f|null",
    "cast|val text, type_ regtype|jsonb|plpgsql i|f|null",
    "check_equality_op|op realtime.equality_op, type_ regtype, val_1 text, val_2 text|boolean|plpgsql i|f|null",
    "check_equality_op|op realtime.equality_op, type_ regtype, val_1 text, val_2 text, negate boolean|boolean|plpgsql s|f|null",
    "is_visible_through_filters|columns realtime.wal_column[], filters realtime.user_defined_filter[]|boolean|sql s|f|null",
    "list_changes|publication name, slot_name name, max_changes integer, max_record_bytes integer|TABLE(wal jsonb, is_rls_enabled boolean, subscription_ids uuid[], errors text[], slot_changes_count bigint)|sql v|f|{log_min_messages=fatal}",
    "quote_wal2json|entity regclass|text|sql i|t|null",
    "send|payload jsonb, event text, topic text, private boolean DEFAULT true|void|plpgsql v|f|null",
    "send_binary|payload bytea, event text, topic text, private boolean DEFAULT true|void|plpgsql v|f|null",
    "subscription_check_filters||trigger|plpgsql v|f|null",
    "to_regrole|role_name text|regrole|sql i|f|null",
    "topic||text|sql s|f|null",
    "wal2json_escape_identifier|name text|text|sql i|t|null",
];

const MESSAGES: [&str; 9] = [
    "topic|text|t|null",
    "extension|text|t|null",
    "payload|jsonb|f|null",
    "event|text|f|null",
    "private|boolean|f|false",
    "updated_at|timestamp without time zone|t|now()",
    "inserted_at|timestamp without time zone|t|now()",
    "id|uuid|t|gen_random_uuid()",
    "binary_payload|bytea|f|null",
];

const SUBSCRIPTION: [&str; 9] = [
    "id|bigint|t|null",
    "subscription_id|uuid|t|null",
    "entity|regclass|t|null",
    "filters|realtime.user_defined_filter[]|t|'{}'::realtime.user_defined_filter[]",
    "claims|jsonb|t|null",
    "claims_role|regrole|t|realtime.to_regrole((claims ->> 'role'::text))",
    "created_at|timestamp without time zone|t|timezone('utc'::text, now())",
    "action_filter|text|f|'*'::text",
    "selected_columns|text[]|f|null",
];

/// Everything the installation is answerable for, one line per fact. Equal lines mean equal installations.
pub(super) async fn snapshot(session: &Session) -> Vec<String> {
    session
        .lines(
            "set search_path = pg_catalog;
             select fact from (
               select concat_ws('|', 'function', p.proname, pg_get_function_arguments(p.oid), pg_get_function_result(p.oid),
                 p.provolatile::text, p.proisstrict, p.prosecdef, p.proconfig, pg_get_userbyid(p.proowner),
                 (select array_agg(x::text order by x::text) from unnest(p.proacl) x), md5(p.prosrc))
                 from pg_proc p where p.pronamespace = 'realtime'::regnamespace
               union all
               select concat_ws('|', 'enum', t.typname, e.enumlabel, rank() over (partition by t.oid order by e.enumsortorder),
                 pg_get_userbyid(t.typowner)) from pg_enum e join pg_type t on t.oid = e.enumtypid
                 where t.typnamespace = 'realtime'::regnamespace
               union all
               select concat_ws('|', 'column', c.relname, a.attname, rank() over (partition by c.oid order by a.attnum),
                 format_type(a.atttypid, a.atttypmod), a.attnotnull, a.attidentity, a.attgenerated, pg_get_expr(d.adbin, d.adrelid))
                 from pg_class c join pg_attribute a on a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped
                 left join pg_attrdef d on d.adrelid = c.oid and d.adnum = a.attnum
                 where c.relnamespace = 'realtime'::regnamespace and c.relkind in ('r', 'p', 'c') and not c.relispartition
               union all
               select concat_ws('|', 'relation', c.relname, c.relkind, c.relrowsecurity, c.relforcerowsecurity,
                 pg_get_userbyid(c.relowner), (select array_agg(x::text order by x::text) from unnest(c.relacl) x))
                 from pg_class c where c.relnamespace = 'realtime'::regnamespace and not c.relispartition
               union all
               select concat_ws('|', 'constraint', c.relname, k.conname, pg_get_constraintdef(k.oid), k.convalidated)
                 from pg_constraint k join pg_class c on c.oid = k.conrelid
                 where c.relnamespace = 'realtime'::regnamespace and not c.relispartition and k.contype <> 'n'
               union all
               select concat_ws('|', 'index', pg_get_indexdef(c.oid)) from pg_class c
                 where c.relnamespace = 'realtime'::regnamespace and c.relkind in ('i', 'I') and not c.relispartition
               union all
               select concat_ws('|', 'trigger', pg_get_triggerdef(t.oid)) from pg_trigger t
                 where t.tgrelid = 'realtime.subscription'::regclass
               union all
               select concat_ws('|', 'version', version) from realtime.schema_migrations
             ) f(fact) order by fact;",
        )
        .await
}

/// Rights as `grantee right...`, a star marking the right to grant on; owner and rights unknown to version 15 left out.
async fn rights(session: &Session, acl: &str, owner: &str) -> Vec<String> {
    session
        .lines(&format!(
            "select case when g.grantee = 0 then 'PUBLIC' else pg_get_userbyid(g.grantee) end || ' ' ||
             string_agg(g.privilege_type || case when g.is_grantable then '*' else '' end, ' ' order by g.privilege_type)
             from ({acl}) a(acl), aclexplode(a.acl) g
             where pg_get_userbyid(g.grantee) <> '{owner}' and g.privilege_type <> 'MAINTAIN' group by g.grantee order by 1"
        ))
        .await
}

#[tokio::test]
async fn functions() {
    let session = migrated().await;
    session.execute("set search_path = pg_catalog").await;
    let found = session
        .lines(
            "select p.proname, pg_get_function_arguments(p.oid), pg_get_function_result(p.oid), l.lanname || ' ' || p.provolatile::text,
             p.proisstrict, p.proconfig from pg_proc p join pg_language l on l.oid = p.prolang
             where p.pronamespace = 'realtime'::regnamespace order by p.proname, 2",
        )
        .await;
    assert_eq!(found, FUNCTIONS);
    let owners =
        "select distinct pg_get_userbyid(proowner), prosecdef from pg_proc where pronamespace = 'realtime'::regnamespace";
    assert_eq!(session.lines(owners).await, [format!("{OWNER}|f")]);

    let (everybody, owned) = ("PUBLIC EXECUTE", ["dashboard_user EXECUTE", "postgres EXECUTE"]);
    let api = ["anon EXECUTE", "authenticated EXECUTE"];
    for function in session.lines("select oid::regprocedure from pg_proc where pronamespace = 'realtime'::regnamespace").await {
        let acl = format!("select proacl from pg_proc where oid = '{function}'::regprocedure");
        let name = function.trim_start_matches("realtime.").split('(').next().unwrap().trim_matches('"');
        let internal = ["broadcast_changes", "list_changes", "send", "send_binary", "topic", "wal2json_escape_identifier"];
        let wanted = if internal.contains(&name) {
            vec![everybody, owned[0], owned[1]]
        } else {
            vec![everybody, api[0], api[1], owned[0], owned[1], "service_role EXECUTE"]
        };
        let mut found = rights(&session, &acl, OWNER).await;
        found.sort();
        assert_eq!(found, wanted, "{function}");
    }
}

#[tokio::test]
async fn tables() {
    let session = migrated().await;
    session.execute("set search_path = pg_catalog").await;
    for (table, wanted) in [("messages", MESSAGES), ("subscription", SUBSCRIPTION)] {
        let columns = format!(
            "select a.attname, format_type(a.atttypid, a.atttypmod), a.attnotnull, pg_get_expr(d.adbin, d.adrelid)
             from pg_attribute a left join pg_attrdef d on d.adrelid = a.attrelid and d.adnum = a.attnum
             where a.attrelid = 'realtime.{table}'::regclass and a.attnum > 0 and not a.attisdropped order by a.attnum"
        );
        assert_eq!(session.lines(&columns).await, wanted);
    }
    let relations = session
        .lines(
            "select relname, relkind, relrowsecurity, relforcerowsecurity, pg_get_userbyid(relowner), pg_get_partkeydef(oid)
             from pg_class where relnamespace = 'realtime'::regnamespace and relkind in ('r', 'p', 'S') order by 1",
        )
        .await;
    assert_eq!(
        relations,
        [
            "messages|p|t|f|supabase_realtime_admin|RANGE (inserted_at)",
            "schema_migrations|r|f|f|supabase_admin|null",
            "subscription|r|f|f|supabase_realtime_admin|null",
            "subscription_id_seq|S|f|f|supabase_realtime_admin|null",
        ]
    );
    let constraints = session
        .lines(
            "select conname, pg_get_constraintdef(oid) from pg_constraint
             where connamespace = 'realtime'::regnamespace and contype <> 'n' order by 1",
        )
        .await;
    assert_eq!(
        constraints,
        [
            "messages_payload_exclusive|CHECK (((payload IS NULL) OR (binary_payload IS NULL))) NOT VALID",
            "messages_pkey|PRIMARY KEY (id, inserted_at)",
            "pk_subscription|PRIMARY KEY (id)",
            "schema_migrations_pkey|PRIMARY KEY (version)",
            "subscription_action_filter_check|CHECK ((action_filter = ANY (ARRAY['*'::text, 'INSERT'::text, 'UPDATE'::text, 'DELETE'::text])))",
        ]
    );
    let indexes = session
        .lines(
            "select pg_get_indexdef(i.indexrelid) from pg_index i join pg_class c on c.oid = i.indexrelid
             where c.relnamespace = 'realtime'::regnamespace and not i.indisprimary order by c.relname",
        )
        .await;
    assert_eq!(
        indexes,
        [
            "CREATE INDEX ix_realtime_subscription_entity ON realtime.subscription USING btree (entity)",
            "CREATE INDEX messages_inserted_at_topic_index ON ONLY realtime.messages USING btree (inserted_at DESC, topic) \
             WHERE ((extension = 'broadcast'::text) AND (private IS TRUE))",
            "CREATE UNIQUE INDEX subscription_subscription_id_entity_filters_action_filter_selec ON realtime.subscription \
             USING btree (subscription_id, entity, filters, action_filter, COALESCE(selected_columns, '{}'::text[]))",
        ]
    );
    let identity =
        "select attidentity::text from pg_attribute where attrelid = 'realtime.subscription'::regclass and attname = 'id'";
    assert_eq!(session.value(identity).await, "a");
    let trigger = "select pg_get_triggerdef(oid) from pg_trigger where tgrelid = 'realtime.subscription'::regclass";
    assert_eq!(
        session.value(trigger).await,
        "CREATE TRIGGER tr_check_filters BEFORE INSERT OR UPDATE ON realtime.subscription \
         FOR EACH ROW EXECUTE FUNCTION realtime.subscription_check_filters()"
    );
}

#[tokio::test]
async fn types() {
    let session = migrated().await;
    let label = "select string_agg(enumlabel, ' ' order by enumsortorder) from pg_enum where enumtypid";
    assert_eq!(session.value(&format!("{label} = 'realtime.action'::regtype")).await, "INSERT UPDATE DELETE TRUNCATE ERROR");
    assert_eq!(
        session.value(&format!("{label} = 'realtime.equality_op'::regtype")).await,
        "eq neq lt lte gt gte in like ilike is match imatch isdistinct"
    );
    let attributes = session
        .lines(
            "select c.relname, string_agg(a.attname || ' ' || format_type(a.atttypid, a.atttypmod), ', ' order by a.attnum)
             from pg_class c join pg_attribute a on a.attrelid = c.oid and a.attnum > 0
             where c.relkind = 'c' and c.relnamespace = 'realtime'::regnamespace group by 1 order by 1",
        )
        .await;
    assert_eq!(
        attributes,
        [
            "user_defined_filter|column_name text, op realtime.equality_op, value text, negate boolean",
            "wal_column|name text, type_name text, type_oid oid, value jsonb, is_pkey boolean, is_selectable boolean",
            "wal_rls|wal jsonb, is_rls_enabled boolean, subscription_ids uuid[], errors text[]",
        ]
    );
    let owners = "select distinct pg_get_userbyid(typowner) from pg_type where typnamespace = 'realtime'::regnamespace
        and typtype in ('e', 'c') and (typrelid = 0 or (select relkind from pg_class where oid = typrelid) = 'c')";
    assert_eq!(session.lines(owners).await, [OWNER]);
}

#[tokio::test]
async fn rights_and_roles() {
    let session = migrated().await;
    let relation = |name: &str| format!("select relacl from pg_class where oid = 'realtime.{name}'::regclass");
    let all = "DELETE INSERT REFERENCES SELECT TRIGGER TRUNCATE UPDATE";
    assert_eq!(
        rights(&session, &relation("messages"), OWNER).await,
        [
            "anon INSERT SELECT UPDATE".to_owned(),
            "authenticated INSERT SELECT UPDATE".to_owned(),
            format!("dashboard_user {all}"),
            format!("postgres {all}"),
            "service_role INSERT SELECT UPDATE".to_owned(),
        ]
    );
    assert_eq!(
        rights(&session, &relation("subscription"), OWNER).await,
        [
            "anon SELECT".to_owned(),
            "authenticated SELECT".to_owned(),
            format!("dashboard_user {all}"),
            format!("postgres {all}"),
            "service_role SELECT".to_owned(),
        ]
    );
    assert_eq!(
        rights(&session, &relation("subscription_id_seq"), OWNER).await,
        [
            "anon USAGE",
            "authenticated USAGE",
            "dashboard_user SELECT UPDATE USAGE",
            "postgres SELECT UPDATE USAGE",
            "service_role USAGE"
        ]
    );
    assert!(rights(&session, &relation("schema_migrations"), "supabase_admin").await.is_empty());
    assert_eq!(
        rights(&session, "select nspacl from pg_namespace where nspname = 'realtime'", "supabase_admin").await,
        ["anon USAGE", "authenticated USAGE", "postgres USAGE*", "service_role USAGE", "supabase_realtime_admin CREATE* USAGE*"]
    );
    assert_eq!(
        session.value("select pg_get_userbyid(nspowner) from pg_namespace where nspname = 'realtime'").await,
        "supabase_admin"
    );
    for (kind, wanted) in [("r", all), ("S", "SELECT UPDATE USAGE"), ("f", "EXECUTE")] {
        let acl = format!(
            "select defaclacl from pg_default_acl where defaclobjtype = '{kind}'
             and defaclnamespace = 'realtime'::regnamespace and defaclrole = 'supabase_admin'::regrole"
        );
        let found = rights(&session, &acl, "supabase_admin").await;
        assert_eq!(found, [format!("dashboard_user {wanted}"), format!("postgres {wanted}")], "{kind}");
    }

    let role = "select rolsuper, rolinherit, rolcreaterole, rolcreatedb, rolcanlogin, rolreplication, rolbypassrls, rolconfig
        from pg_roles where rolname = 'supabase_realtime_admin'";
    assert_eq!(session.value(role).await, "f|f|f|f|f|f|f|{\"search_path=public, extensions, realtime\"}");
    for group in ["anon", "authenticated", "service_role"] {
        assert_eq!(session.value(&format!("select pg_has_role('{OWNER}', '{group}', 'member')")).await, "t");
    }
    assert_eq!(session.value(&format!("select has_parameter_privilege('{OWNER}', 'log_min_messages', 'set')")).await, "t");
}
