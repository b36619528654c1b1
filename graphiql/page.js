// Starts GraphiQL on the URL that served the page, with the examples of index.html as its first tabs.
// Tabs are kept in localStorage from then on; headers (an API key, say) are not.
/* global React, ReactDOM, GraphiQL */
'use strict';

const examples = Array.from(document.querySelectorAll('script[type="application/graphql"]'), (script) => ({
  query: `${script.textContent.trim()}\n`,
  variables: script.dataset.variables,
}));

ReactDOM.createRoot(document.getElementById('graphiql')).render(
  React.createElement(GraphiQL, {
    fetcher: GraphiQL.createFetcher({ url: location.pathname }),
    defaultTabs: examples,
    defaultEditorToolsVisibility: 'variables',
    isHeadersEditorEnabled: true,
    shouldPersistHeaders: false,
  }),
);
