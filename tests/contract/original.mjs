// Makes `import` and `require` of 'uWebSockets.js' give the original, under the name it has in this package.
//
//     node --import ./original.mjs program.mjs
//
// The counterpart of ringway/register on the other side of every comparison.
import Module, { createRequire, register } from 'node:module';
import { pathToFileURL } from 'node:url';

const path = createRequire(import.meta.url).resolve('uwebsockets');

/** The example programs name the place where a build of the original's own repository lies. */
const names = /^uWebSockets\.js$|^(\.\.\/)+dist\/uws\.js$/;

const resolveFilename = Module._resolveFilename;
Module._resolveFilename = function (request, ...rest) {
  return names.test(request) ? path : resolveFilename.call(this, request, ...rest);
};

const hooks = `
  const names = ${names};
  export function resolve(specifier, context, next) {
    return names.test(specifier) ? { url: ${JSON.stringify(pathToFileURL(path).href)}, shortCircuit: true } : next(specifier, context);
  }`;
register(`data:text/javascript,${encodeURIComponent(hooks)}`);
