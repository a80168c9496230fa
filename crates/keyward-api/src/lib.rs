//! LocalAPI: types, routes and the OpenAPI document.
