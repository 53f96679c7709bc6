//! From names in a statement to tables.
//!
//! Only what a statement names is opened, through views too, and at one version: a table named twice in a statement
//! is the same snapshot. Statements about the catalogue itself (SHOW, information_schema) see every table with its
//! declared columns, without opening any.

mod known;
mod pinned;

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use async_trait::async_trait;
use datafusion::arrow::datatypes::Schema;
use datafusion::catalog::{CatalogProvider, MemoryCatalogProvider, MemoryCatalogProviderList, SchemaProvider};
use datafusion::catalog::{CatalogProviderList as _, TableProvider};
use datafusion::common::TableReference;
use datafusion::datasource::empty::EmptyTable;
use datafusion::datasource::file_format::parquet::ParquetFormat;
use datafusion::datasource::listing::{ListingOptions, ListingTable, ListingTableConfig, ListingTableUrl};
use datafusion::datasource::view::ViewTable;
use datafusion::datasource::{TableType, provider_as_source};
use datafusion::error::Result as DataFusionResult;
use datafusion::execution::SessionState;
use datafusion::logical_expr::{LogicalPlan, LogicalPlanBuilder, cast, ident, lit};
use datafusion::scalar::ScalarValue;
use datafusion::sql::parser::Statement;
use futures::future::BoxFuture;
use webdancer_lake::lake::At;
use webdancer_lake::pins::{PinManifest, PinnedTable};
use webdancer_schemas::kind::Kind;
use webdancer_schemas::table::table_schema;

use crate::catalog::Catalog;
use crate::error::{QueryError, Result};
use crate::gated;
use crate::limits::Limits;
use crate::ordered::OrderedTable;
use crate::reference::{Reference, name_at};
use crate::session::{Mode, Order};
use crate::turns::{self, Turns};
use crate::views::{self, View};

pub(crate) use known::KnownPins;

/// Name of the catalogue that tables appear in.
pub(crate) const CATALOG: &str = "lake";
/// Name of the schema that tables appear in.
pub(crate) const SCHEMA: &str = "public";
const INFORMATION_SCHEMA: &str = "information_schema";

/// Which versions to read.
#[derive(Debug, Clone)]
pub(crate) enum Versions {
    /// As the caller says, the same for all tables.
    At(At),
    /// As recorded; a table that is not recorded did not exist.
    Recorded(BTreeMap<String, PinnedTable>),
}

/// Opens the tables of one statement.
#[derive(Debug)]
pub(crate) struct Resolver<'a> {
    catalog: &'a dyn Catalog,
    state: &'a SessionState,
    limits: &'a Limits,
    known_pins: &'a KnownPins,
    versions: Versions,
    /// Rows of event tables come in the order of their ids: for pins.
    ordered: bool,
    /// Rows of gated benchmarks are read.
    restricted: bool,
    opened: HashMap<String, Option<Arc<dyn TableProvider>>>,
    used: BTreeMap<String, PinnedTable>,
}

/// A planned statement.
#[derive(Debug)]
pub(crate) struct Resolved {
    /// The state to optimise and run it with.
    pub(crate) state: SessionState,
    /// The plan, views inlined, not optimised.
    pub(crate) plan: LogicalPlan,
    /// Tables opened, by the names a pin's manifest has.
    pub(crate) used: BTreeMap<String, PinnedTable>,
}

impl<'a> Resolver<'a> {
    pub(crate) fn new(
        catalog: &'a dyn Catalog,
        state: &'a SessionState,
        limits: &'a Limits,
        known_pins: &'a KnownPins,
        mode: &Mode,
    ) -> Resolver<'a> {
        Resolver {
            catalog,
            state,
            limits,
            known_pins,
            versions: mode.versions.clone(),
            ordered: mode.order == Order::Fixed,
            restricted: mode.restricted,
            opened: HashMap::new(),
            used: BTreeMap::new(),
        }
    }

    /// Opens what `statement` names and plans it. `references` are the names that [`crate::reference`] gave.
    pub(crate) async fn plan(
        mut self,
        statement: Statement,
        references: &BTreeMap<String, Reference>,
    ) -> Result<Resolved> {
        let mut tables = HashMap::new();
        let names = names_of(self.state, &statement)?;
        for name in &names.tables {
            let table = match references.get(name) {
                Some(Reference::At { table, at }) => self.table_at(name, table, *at).await?,
                Some(Reference::Pin(pin)) => Some(self.pin(name, pin).await?),
                None => self.table(name).await?,
            };
            if let Some(table) = table {
                tables.insert(name.clone(), table);
            }
        }
        if names.information_schema {
            for (name, table) in declared_tables(self.state, self.limits).await? {
                tables.entry(name).or_insert(table);
            }
        }
        let state = with_tables(self.state, tables);
        let plan = state.statement_to_plan(statement).await.map_err(|error| explain_missing(error.into()))?;
        Ok(Resolved { state, plan, used: self.used })
    }

    async fn table(&mut self, name: &str) -> Result<Option<Arc<dyn TableProvider>>> {
        match self.versions.clone() {
            Versions::At(at) => self.open(name, name, at).await,
            Versions::Recorded(_) => self.open(name, name, At::Latest).await,
        }
    }

    async fn table_at(&mut self, key: &str, name: &str, at: At) -> Result<Option<Arc<dyn TableProvider>>> {
        if views::find(name).is_some() && matches!(at, At::Version(_)) {
            return Err(QueryError::Sql(format!(
                "{name} is a view over several tables, each with versions of its own: give at('{name}', …) a time"
            )));
        }
        match self.open(key, name, at).await? {
            Some(table) => Ok(Some(table)),
            None => Err(no_table(name)),
        }
    }

    /// Opens table or view `name` under `key`, once. None if there is no such name.
    fn open<'b>(
        &'b mut self,
        key: &'b str,
        name: &'b str,
        at: At,
    ) -> BoxFuture<'b, Result<Option<Arc<dyn TableProvider>>>> {
        Box::pin(async move {
            if let Some(table) = self.opened.get(key) {
                return Ok(table.clone());
            }
            let table = if let Some(kind) = Kind::from_table(name) {
                let table = self.event_table(key, kind, at).await?;
                Some(if self.restricted { table } else { self.without_gated(kind, table).await? })
            } else if let Some(view) = views::find(name) {
                Some(self.view(view, key, at).await?)
            } else {
                None
            };
            self.opened.insert(key.to_string(), table.clone());
            Ok(table)
        })
    }

    async fn event_table(&mut self, key: &str, kind: Kind, at: At) -> Result<Arc<dyn TableProvider>> {
        let table = match &self.versions {
            Versions::At(_) => self.catalog.table(kind, at).await?,
            Versions::Recorded(tables) => match tables.get(key) {
                Some(recorded) => {
                    self.check_same_table(kind, recorded).await?;
                    let table = self.catalog.table(kind, At::Version(recorded.version)).await?;
                    let gone = || QueryError::NotFound(format!("table {} is gone", kind.table()));
                    Some(table.ok_or_else(gone)?)
                }
                None => None,
            },
        };
        let Some(table) = table else {
            return Ok(Arc::new(EmptyTable::new(table_schema(kind))));
        };
        self.used.insert(key.to_string(), table.pinned);
        let provider = if self.ordered { OrderedTable::over(table.provider) } else { table.provider };
        with_declared_columns(provider, kind)
    }

    /// What a reader without the right to gated benchmarks has of a table.
    async fn without_gated(&self, kind: Kind, table: Arc<dyn TableProvider>) -> Result<Arc<dyn TableProvider>> {
        let Some(sql) = gated::of_table(kind) else { return Ok(table) };
        self.narrowed(&sql, self.with_tellers(kind, table).await?).await
    }

    /// The rows of a table that are to be narrowed, and those tables that tell which of them are gated, as they are now.
    async fn with_tellers(
        &self,
        kind: Kind,
        table: Arc<dyn TableProvider>,
    ) -> Result<HashMap<String, Arc<dyn TableProvider>>> {
        let mut tables = HashMap::from([(gated::NARROWED.to_string(), table)]);
        for teller in gated::told_by(kind) {
            tables.insert(teller.table().to_string(), self.declared(*teller, At::Latest).await?);
        }
        Ok(tables)
    }

    /// A table as its kind declares it; none is an empty one.
    async fn declared(&self, kind: Kind, at: At) -> Result<Arc<dyn TableProvider>> {
        match self.catalog.table(kind, at).await? {
            Some(table) => with_declared_columns(table.provider, kind),
            None => Ok(Arc::new(EmptyTable::new(table_schema(kind)))),
        }
    }

    async fn narrowed(
        &self,
        sql: &str,
        tables: HashMap<String, Arc<dyn TableProvider>>,
    ) -> Result<Arc<dyn TableProvider>> {
        let statement = crate::statement::parse(sql, self.limits)?;
        let plan = with_tables(self.state, tables).statement_to_plan(statement).await?;
        Ok(Arc::new(ViewTable::new(plan, None)))
    }

    /// Versions count within one table: those of one that was made anew are others.
    async fn check_same_table(&self, kind: Kind, recorded: &PinnedTable) -> Result<()> {
        let table = self.catalog.table(kind, At::Latest).await?;
        match (&recorded.id, table.and_then(|table| table.pinned.id)) {
            (Some(then), Some(now)) if *then != now => {
                Err(QueryError::NotFound(format!("table {} was made anew", kind.table())))
            }
            _ => Ok(()),
        }
    }

    /// A view under `turns@time` reads `trajectories@time`.
    async fn view(&mut self, view: &View, key: &str, at: At) -> Result<Arc<dyn TableProvider>> {
        let statement = crate::statement::parse(view.sql, self.limits)?;
        let suffixed = key != view.name;
        let mut tables = HashMap::new();
        for name in names_of(self.state, &statement)?.tables {
            let inner = if suffixed { name_at(&name, at) } else { name.clone() };
            if let Some(table) = self.open(&inner, &name, at).await? {
                tables.insert(name, table);
            }
        }
        view_over(self.state, view, statement, tables).await
    }

    async fn pin(&mut self, key: &str, reference: &str) -> Result<Arc<dyn TableProvider>> {
        let manifest = self.catalog.find_pin(reference).await?;
        let uri = self.catalog.pin_file_url(&manifest.digest, "manifest.json");
        let pinned = PinnedTable { uri, version: 0, id: None };
        if let Versions::Recorded(tables) = &self.versions
            && tables.get(key).is_some_and(|recorded| !recorded.uri.contains(&manifest.digest))
        {
            return Err(QueryError::NotFound(format!("pin {reference:?} is not the one that was read before")));
        }
        self.used.insert(key.to_string(), pinned);
        self.check_files(&manifest).await?;
        let urls: Vec<ListingTableUrl> = manifest
            .files
            .iter()
            .map(|file| ListingTableUrl::parse(self.catalog.pin_file_url(&manifest.digest, &file.path)))
            .collect::<DataFusionResult<_>>()?;
        let options = ListingOptions::new(Arc::new(ParquetFormat::default().with_force_view_types(false)));
        let config = ListingTableConfig::new_with_multi_paths(urls)
            .with_listing_options(options)
            .infer_schema(self.state)
            .await?;
        let rows: Arc<dyn TableProvider> = Arc::new(ListingTable::try_new(config)?);
        if self.restricted { Ok(rows) } else { self.open_rows(&manifest, rows).await }
    }

    /// Whether a pin's files are there and as long as they were. Their content is for `pin verify`.
    async fn check_files(&self, pin: &PinManifest) -> Result<()> {
        for file in &pin.files {
            let problem = match self.catalog.pin_file_bytes(&pin.digest, &file.path).await? {
                Some(bytes) if bytes == file.bytes => continue,
                Some(bytes) => format!("has {bytes} bytes, its manifest says {}", file.bytes),
                None => "is missing".to_string(),
            };
            let (name, path) = (&pin.name, &file.path);
            return Err(QueryError::NotFound(format!(
                "pin {name} is damaged: {path} {problem}; `webdancer pin verify {name}` checks all its files, and \
                 `pin create` with its query stores them again"
            )));
        }
        Ok(())
    }
}

struct Names {
    tables: Vec<String>,
    information_schema: bool,
}

fn names_of(state: &SessionState, statement: &Statement) -> Result<Names> {
    let mut names = Names { tables: Vec::new(), information_schema: false };
    for reference in state.resolve_table_references(statement)? {
        let in_schema = match &reference {
            TableReference::Bare { .. } => SCHEMA,
            TableReference::Partial { schema, .. } | TableReference::Full { schema, .. } => schema,
        };
        if in_schema == INFORMATION_SCHEMA {
            names.information_schema = true;
        } else if in_schema == SCHEMA {
            names.tables.push(reference.table().to_string());
        }
    }
    Ok(names)
}

/// Every event table, empty, and every view over them: what can be asked about.
pub(crate) async fn declared_tables(
    state: &SessionState,
    limits: &Limits,
) -> Result<Vec<(String, Arc<dyn TableProvider>)>> {
    let mut tables: HashMap<String, Arc<dyn TableProvider>> = Kind::ALL
        .iter()
        .map(|kind| {
            (kind.table().to_string(), Arc::new(EmptyTable::new(table_schema(*kind))) as Arc<dyn TableProvider>)
        })
        .collect();
    // Views are listed after those that they read.
    for view in views::ALL {
        let statement = crate::statement::parse(view.sql, limits)?;
        let table = view_over(state, view, statement, tables.clone()).await?;
        tables.insert(view.name.to_string(), table);
    }
    let mut tables: Vec<_> = tables.into_iter().collect();
    tables.sort_by(|a, b| a.0.cmp(&b.0));
    Ok(tables)
}

/// A view over tables that are open.
async fn view_over(
    state: &SessionState,
    view: &View,
    statement: Statement,
    tables: HashMap<String, Arc<dyn TableProvider>>,
) -> Result<Arc<dyn TableProvider>> {
    if view.name == turns::NAME
        && let Some(trajectories) = tables.get(turns::OVER)
    {
        return Ok(Turns::of(trajectories.clone())?);
    }
    let plan = with_tables(state, tables).statement_to_plan(statement).await?;
    Ok(Arc::new(ViewTable::new(plan, Some(view.sql.to_string()))))
}

/// An older version of a table lacks columns that came later: they read as null.
fn with_declared_columns(provider: Arc<dyn TableProvider>, kind: Kind) -> Result<Arc<dyn TableProvider>> {
    let present = provider.schema();
    let declared = table_schema(kind);
    if declared.fields().iter().all(|field| present.column_with_name(field.name()).is_some()) {
        return Ok(provider);
    }
    let known = declared.fields().iter().map(|field| match present.column_with_name(field.name()) {
        Some(_) => Ok(ident(field.name())),
        None => Ok(cast(lit(ScalarValue::Null), field.data_type().clone()).alias(field.name())),
    });
    let newer = unknown_columns(&present, &declared).map(|name| Ok(ident(name)));
    let columns = known.chain(newer).collect::<Result<Vec<_>>>()?;
    let plan = LogicalPlanBuilder::scan(kind.table(), provider_as_source(provider), None)?.project(columns)?.build()?;
    Ok(Arc::new(ViewTable::new(plan, None)))
}

fn unknown_columns<'a>(present: &'a Schema, declared: &'a Schema) -> impl Iterator<Item = &'a str> {
    present.fields().iter().map(|field| field.name().as_str()).filter(|name| declared.column_with_name(name).is_none())
}

fn with_tables(state: &SessionState, tables: HashMap<String, Arc<dyn TableProvider>>) -> SessionState {
    let catalog = MemoryCatalogProvider::new();
    // Registering in memory does not fail.
    let _ = catalog.register_schema(SCHEMA, Arc::new(Tables { tables }));
    let catalogs = MemoryCatalogProviderList::new();
    catalogs.register_catalog(CATALOG.to_string(), Arc::new(catalog));
    let mut state = state.clone();
    state.register_catalog_list(Arc::new(catalogs));
    state.mark_start_execution();
    state
}

#[derive(Debug)]
struct Tables {
    tables: HashMap<String, Arc<dyn TableProvider>>,
}

#[async_trait]
impl SchemaProvider for Tables {
    fn table_names(&self) -> Vec<String> {
        let mut names: Vec<String> = self.tables.keys().cloned().collect();
        names.sort();
        names
    }

    async fn table(&self, name: &str) -> DataFusionResult<Option<Arc<dyn TableProvider>>> {
        Ok(self.tables.get(name).cloned())
    }

    async fn table_type(&self, name: &str) -> DataFusionResult<Option<TableType>> {
        Ok(self.tables.get(name).map(|table| table.table_type()))
    }

    fn table_exist(&self, name: &str) -> bool {
        self.tables.contains_key(name)
    }
}

/// DataFusion names a missing table by catalogue and schema, which nobody wrote.
fn explain_missing(error: QueryError) -> QueryError {
    match &error {
        QueryError::Sql(message) => match message
            .strip_prefix("table '")
            .and_then(|rest| rest.strip_suffix("' not found"))
            .map(|name| name.trim_start_matches(&format!("{CATALOG}.{SCHEMA}.")))
        {
            Some(name) => no_table(name),
            None => error,
        },
        _ => error,
    }
}

/// Which tables there are is fixed, so that a wrong name is a mistake as a wrong column is.
fn no_table(name: &str) -> QueryError {
    QueryError::Sql(format!("there is no table {name:?}; SHOW TABLES lists them"))
}
