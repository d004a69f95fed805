//! Prints the public GraphQL schema, for `just sdl`.

fn main() {
    print!("{}", graphql::schema_sdl());
}
