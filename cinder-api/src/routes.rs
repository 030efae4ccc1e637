//! Paths, and what is done at each: a router that can say which paths and methods it has, so that the document of the API
//! ([`crate::openapi`]) can be compared with it. What is done there is [`crate::api`]'s business.

use std::sync::Arc;

use axum::Router;
use axum::extract::Request;
use axum::handler::Handler;
use axum::http::Method;
use axum::middleware::{Next, from_fn};
use axum::routing::{self, MethodRouter};

use crate::fault::Fault;
use crate::request::Context;
use crate::service::Service;

/// What is done at one path, by method.
#[derive(Clone)]
pub struct Methods {
    router: MethodRouter<Arc<Service>>,
    names: Vec<Method>,
}

macro_rules! methods {
    ($($(#[$doc:meta])* $name:ident = $method:ident),* $(,)?) => {
        $($(#[$doc])*
        pub fn $name<H, T>(handler: H) -> Methods
        where
            H: Handler<T, Arc<Service>>,
            T: 'static,
        {
            Methods { router: routing::$name(handler), names: vec![Method::$method] }
        })*

        impl Methods {
            $($(#[$doc])*
            #[must_use]
            pub fn $name<H, T>(mut self, handler: H) -> Self
            where
                H: Handler<T, Arc<Service>>,
                T: 'static,
            {
                self.router = self.router.$name(handler);
                self.names.push(Method::$method);
                self
            })*
        }
    };
}

methods! {
    /// Shows something.
    get = GET,
    /// Makes something, or does something with it.
    post = POST,
    /// Changes something.
    put = PUT,
    /// Takes something away.
    delete = DELETE,
}

/// Some of the API's paths.
#[derive(Default)]
pub struct Routes {
    router: Router<Arc<Service>>,
    list: Vec<(String, Vec<Method>)>,
}

impl Routes {
    /// No paths yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// With one more path. Parts in braces stand for anything.
    #[must_use]
    pub fn route(mut self, path: &str, methods: Methods) -> Self {
        self.router = self.router.route(path, methods.router);
        self.list.push((path.to_owned(), methods.names));
        self
    }

    /// With other paths beside these.
    #[must_use]
    pub fn merge(mut self, other: Self) -> Self {
        self.router = self.router.merge(other.router);
        self.list.extend(other.list);
        self
    }

    /// The same, as if none of them existed in versions before 3.`minor`.
    #[must_use]
    pub fn since(mut self, minor: u8) -> Self {
        let check = move |context: Context, request: Request, next: Next| async move {
            context.since(minor)?;
            Ok::<_, Fault>(next.run(request).await)
        };
        self.router = self.router.route_layer(from_fn(check));
        self
    }

    /// Every path with the methods that it has.
    pub fn list(&self) -> &[(String, Vec<Method>)] {
        &self.list
    }

    /// What answers at these paths.
    pub fn into_router(self) -> Router<Arc<Service>> {
        self.router
    }
}
