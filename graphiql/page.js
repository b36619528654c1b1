// Starts GraphiQL on the URL that served the page, with the examples of index.html as its first tabs.
// Tabs are kept in localStorage from then on; headers (an API key, say) are not.
/* global React, ReactDOM, GraphiQL, graphqlWs */
'use strict';

const examples = Array.from(document.querySelectorAll('script[type="application/graphql"]'), (script) => ({
  query: `${script.textContent.trim()}\n`,
  variables: script.dataset.variables,
}));

const overHttp = GraphiQL.createFetcher({ url: location.pathname });

function fetcher(params, options) {
  return isSubscription(params, options) ? overWebsocket(params, options.headers) : overHttp(params, options);
}

function isSubscription({ operationName }, { documentAST } = {}) {
  return (documentAST?.definitions ?? []).some(
    ({ operation, name }) => operation === 'subscription' && (!operationName || name?.value === operationName),
  );
}

// One socket for each subscription, with the headers of its tab as the payload of connection_init. It does not
// connect again by itself: nobody would see the gap. Empty batches, after the first, only say that the line is alive;
// shown, they would wipe away what happened last.
function overWebsocket(params, headers) {
  const url = new URL(location.pathname, location.href);
  url.protocol = url.protocol === 'https:' ? 'wss:' : 'ws:';
  let begun = false;
  return {
    subscribe(observer) {
      const client = graphqlWs.createClient({ url: url.href, connectionParams: headers, retryAttempts: 0 });
      const unsubscribe = client.subscribe(params, {
        next(answer) {
          if (!begun || !isEmpty(answer)) observer.next(answer);
          begun = true;
        },
        error: (error) => observer.error(readable(error)),
        complete: () => observer.complete(),
      });
      return { unsubscribe };
    },
  };
}

function isEmpty({ data, errors }) {
  const batches = Object.values(data ?? {});
  const lists = batches.flatMap((batch) => Object.values(batch ?? {}).filter(Array.isArray));
  return !errors && lists.length > 0 && lists.every((list) => list.length === 0);
}

function readable(error) {
  if (!(error instanceof CloseEvent)) return error;
  return new Error(`The websocket was closed (${error.code}${error.reason ? `: ${error.reason}` : ''}). Run it again.`);
}

ReactDOM.createRoot(document.getElementById('graphiql')).render(
  React.createElement(GraphiQL, {
    fetcher,
    defaultTabs: examples,
    defaultEditorToolsVisibility: 'variables',
    isHeadersEditorEnabled: true,
    shouldPersistHeaders: false,
  }),
);
