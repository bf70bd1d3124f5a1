// Makes `import` and `require` of 'uWebSockets.js' give the original, whatever package asks for it.
//
//     node --import ./original.mjs program.mjs
//     node --import ./original.mjs?older program.mjs
//
// The counterpart of ringway/register on the other side of every comparison. `older`: the build that also runs on the C library of Debian 12.
import Module, { createRequire, register } from 'node:module';
import { pathToFileURL } from 'node:url';

const require = createRequire(import.meta.url);
const path = require.resolve(import.meta.url.endsWith('?older') ? 'uwebsockets' : 'uWebSockets.js');

/** The example programs name the place where a build of the original's own repository lies. */
const names = /^uWebSockets\.js$|^(\.\.\/)+dist\/uws\.js$/;

const resolveFilename = Module._resolveFilename;
Module._resolveFilename = function (request, ...rest) {
  return names.test(request) ? path : resolveFilename.call(this, request, ...rest);
};

/** For ES modules: with every name, of which the wrapper of one build lacks some and the other has no wrapper. */
const source = `
  import uws from ${JSON.stringify(pathToFileURL(path).href)};
  export default uws;
  export const { ${Object.keys(require(path)).join()} } = uws;`;

const hooks = `
  const names = ${names};
  const url = 'original:uws';
  export function resolve(specifier, context, next) {
    return names.test(specifier) ? { url, shortCircuit: true } : next(specifier, context);
  }
  export function load(given, context, next) {
    return given === url ? { format: 'module', source: ${JSON.stringify(source)}, shortCircuit: true } : next(given, context);
  }`;
register(`data:text/javascript,${encodeURIComponent(hooks)}`);
