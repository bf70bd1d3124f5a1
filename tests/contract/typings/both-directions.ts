/**
 * Compiles only if our typings and those of the original can stand in for each other, in both directions. Where they cannot, the line
 * says why, and fails to compile on the day they can.
 *
 * Role: input of the type checker, never run; typings.test.ts runs it.
 */
import type * as original from 'uWebSockets.js';
import type * as ours from '../../../src/frontend/uws/index.ts';

/** A value of `From` is accepted where a `To` is asked for. */
declare function accepted<From, To>(...proof: [From] extends [To] ? [] : [From, 'is not assignable to', To]): void;

interface Data {
  name: string;
}

// What a program is given: it was written for the original's type, and gets ours.
accepted<ours.TemplatedApp, original.TemplatedApp>();
accepted<ours.HttpRequest, original.HttpRequest>();
accepted<ours.HttpResponse, original.HttpResponse>();
accepted<ours.WebSocket<Data>, original.WebSocket<Data>>();
accepted<ours.MultipartField, original.MultipartField>();
accepted<ours.us_listen_socket, original.us_listen_socket>();
accepted<ours.us_socket, original.us_socket>();
accepted<ours.us_socket_context_t, original.us_socket_context_t>();
accepted<ours.CompressOptions, original.CompressOptions>();

// What a program hands over: it has the original's type, and we take it.
accepted<original.WebSocketBehavior<Data>, ours.WebSocketBehavior<Data>>();
accepted<original.AppOptions, ours.AppOptions>();
accepted<original.RecognizedString, ours.RecognizedString>();
accepted<original.us_listen_socket, ours.us_listen_socket>();
accepted<original.us_socket, ours.us_socket>();
accepted<original.us_socket_context_t, ours.us_socket_context_t>();
accepted<original.CompressOptions, ours.CompressOptions>();

// And the other way round: what was written for ours can be handed to the original.
accepted<ours.AppOptions, original.AppOptions>();
accepted<ours.RecognizedString, original.RecognizedString>();
accepted<original.HttpRequest, ours.HttpRequest>();
accepted<original.MultipartField, ours.MultipartField>();

// Members that later versions of the original have and these typings of it do not.
// @ts-expect-error onDataV2, collectBody, getRemotePort, getProxiedRemotePort: a handler of ours may use them
accepted<ours.WebSocketBehavior<Data>, original.WebSocketBehavior<Data>>();
// @ts-expect-error the same
accepted<original.HttpResponse, ours.HttpResponse>();
// @ts-expect-error getRemotePort, sendFirstFragment, sendFragment, sendLastFragment
accepted<original.WebSocket<Data>, ours.WebSocket<Data>>();
// @ts-expect-error getDescriptor, addChildAppDescriptor, removeChildAppDescriptor, declarative responses, listen with host and options
accepted<original.TemplatedApp, ours.TemplatedApp>();

// The module as a whole: each of its functions and constants.
type Names = Exclude<keyof typeof original, 'ListenOptions'>;
accepted<Names, keyof typeof ours>();
accepted<typeof ours.App, typeof original.App>();
accepted<typeof ours.SSLApp, typeof original.SSLApp>();
accepted<typeof ours.us_listen_socket_close, typeof original.us_listen_socket_close>();
accepted<typeof ours.us_socket_local_port, typeof original.us_socket_local_port>();
accepted<typeof ours.getParts, typeof original.getParts>();
accepted<typeof original.getParts, typeof ours.getParts>();
type Constants = Exclude<Names, 'App' | 'SSLApp' | 'us_listen_socket_close' | 'us_socket_local_port' | 'getParts'>;
accepted<(typeof ours)[Constants], original.CompressOptions>();
