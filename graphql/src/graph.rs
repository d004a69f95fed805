//! The executable schema, and its text.

use crate::app::App;
use crate::error::ErrorCode;
use crate::limits;
use crate::mutation::Mutation;
use crate::query::Query;
use crate::subscription::Subscription;
use async_graphql::{SDLExportOptions, Schema, SchemaBuilder};
use std::sync::Arc;

/// The executable schema.
#[derive(Clone)]
pub(crate) struct Graph(pub(crate) Schema<Query, Mutation, Subscription>);

impl Graph {
    pub(crate) fn new(app: Arc<App>) -> Self {
        let development = app.config.development;
        let mut builder = builder().limit_complexity(limits::COMPLEXITY).data(app);
        if !development {
            builder = builder.disable_introspection().disable_suggestions();
        }
        Self(builder.finish())
    }
}

fn builder() -> SchemaBuilder<Query, Mutation, Subscription> {
    // No field has this type: it is what `errors[].extensions.code` says.
    Schema::build(Query, Mutation, Subscription).register_output_type::<ErrorCode>()
}

/// The schema as text: what `schema/schema.graphql` holds.
#[must_use]
pub fn schema_sdl() -> String {
    let options = SDLExportOptions::new().prefer_single_line_descriptions().use_space_ident();
    let text = builder().finish().sdl_with_options(options);
    text.lines().map(str::trim_end).collect::<Vec<_>>().join("\n").trim().to_owned() + "\n"
}
