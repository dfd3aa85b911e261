// Starts Swagger UI on /docs; a file, because the page's policy allows no inline script.
SwaggerUIBundle({
  url: "/openapi.json",
  dom_id: "#swagger-ui",
  deepLinking: true,
  // no badge: it would ask a server elsewhere to look at the document
  validatorUrl: null,
});
